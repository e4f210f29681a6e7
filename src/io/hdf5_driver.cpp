#include "hdf5_driver.hpp"

#include <cerrno>
#include <cstring>

namespace comigs::io::hdf5 {
namespace {

// What the library keeps of an open file; it is the first member's.
struct Driver {
  H5FD_t base;
  GrowingFile* file;
};

GrowingFile& file_of(const H5FD_t* driver) { return *reinterpret_cast<const Driver*>(driver)->file; }

GrowingFile::Kind kind_of(H5FD_mem_t type) {
  return type == H5FD_MEM_DRAW ? GrowingFile::Kind::numbers : GrowingFile::Kind::structure;
}

herr_t told(bool done, const char* function) {
  if (done) return 0;
  H5Epush2(H5E_DEFAULT, __FILE__, function, __LINE__, H5E_ERR_CLS, H5E_IO, H5E_WRITEERROR, "%s",
           std::strerror(errno));
  return -1;
}

H5FD_t* open(const char*, unsigned, hid_t access, haddr_t) {
  auto* const file = *static_cast<GrowingFile* const*>(H5Pget_driver_info(access));
  file->opened();
  return &(new Driver{.base = {}, .file = file})->base;
}

herr_t close(H5FD_t* driver) {
  delete reinterpret_cast<Driver*>(driver);
  return 0;
}

herr_t query(const H5FD_t*, unsigned long* features) {
  // Each piece of structure is allocated for itself, so that it lies in one page.
  *features = H5FD_FEAT_AGGREGATE_SMALLDATA | H5FD_FEAT_DATA_SIEVE;
  return 0;
}

haddr_t allocate(H5FD_t* driver, H5FD_mem_t type, hid_t, hsize_t size) {
  return file_of(driver).allocate(size, kind_of(type));
}

herr_t release(H5FD_t* driver, H5FD_mem_t, hid_t, haddr_t place, hsize_t size) {
  file_of(driver).free(place, size);
  return 0;
}

haddr_t stated_end(const H5FD_t* driver, H5FD_mem_t) { return file_of(driver).stated_end(); }

herr_t state_end(H5FD_t* driver, H5FD_mem_t, haddr_t end) {
  file_of(driver).state_end(end);
  return 0;
}

haddr_t size(const H5FD_t* driver, H5FD_mem_t) { return file_of(driver).size(); }

herr_t read(H5FD_t* driver, H5FD_mem_t, hid_t, haddr_t place, size_t size, void* bytes) {
  return told(file_of(driver).read(place, {static_cast<std::byte*>(bytes), size}), "read");
}

herr_t write(H5FD_t* driver, H5FD_mem_t type, hid_t, haddr_t place, size_t size, const void* bytes) {
  return told(file_of(driver).write(place, {static_cast<const std::byte*>(bytes), size}, kind_of(type)),
              "write");
}

hid_t registered() {
  H5FD_class_t kind{};
  kind.name = "comigs-growing";
  kind.maxaddr = HADDR_MAX - 1;
  kind.fc_degree = H5F_CLOSE_WEAK;
  kind.fapl_size = sizeof(GrowingFile*);
  kind.open = &open;
  kind.close = &close;
  kind.query = &query;
  kind.alloc = &allocate;
  kind.free = &release;
  kind.get_eoa = &stated_end;
  kind.set_eoa = &state_end;
  kind.get_eof = &size;
  kind.read = &read;
  kind.write = &write;
  const H5FD_mem_t map[] = H5FD_FLMAP_DICHOTOMY;
  std::memcpy(kind.fl_map, map, sizeof map);
#ifdef H5FD_CLASS_VERSION  // HDF5 1.14 and later
  kind.version = H5FD_CLASS_VERSION;
  kind.value = H5_VFD_MAX;
#endif
  return check(H5FDregister(&kind), H5I_INVALID_HID, "register a file driver");
}

}  // namespace

void read_and_write_through(const Object& access, GrowingFile& file) {
  static const hid_t driver = registered();
  GrowingFile* const pointer = &file;
  check(H5Pset_driver(access.id(), driver, &pointer), H5I_INVALID_HID, "choose a file driver");
}

}  // namespace comigs::io::hdf5
