#include <algorithm>
#include <limits>
#include <utility>

#include "comigs/base/error.hpp"
#include "hdf5_support.hpp"

namespace comigs::io::hdf5 {
namespace {

constexpr std::uint64_t chunk_bytes = 16 * 1024;  // about what a growing array takes before its first row
constexpr std::uint64_t most_chunk_rows = 64;

// Must come before any other call of the library.
void prepare_library() {
  // A file whose close failed (disk full) stays registered though its memory is gone; the library's clean-up
  // at exit would touch it. We close everything ourselves.
  static const bool once = H5dont_atexit() >= 0;
  static_cast<void>(once);
  // `check` reports the errors; the library's own prints of them go nowhere.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  // A file from elsewhere must neither make us load a filter's code nor lead us to other files.
  static const bool closed = H5PLset_loading_state(0) >= 0 && H5Lunregister(H5L_TYPE_EXTERNAL) >= 0;
  static_cast<void>(closed);
}

// Nor must an array whose data lie in other files.
void require_own_data(const Dataset& dataset) {
  const Object creation(check(H5Dget_create_plist(dataset.id()), dataset.id(), "look at"), &H5Pclose);
  if (H5Pget_layout(creation.id()) == H5D_VIRTUAL || H5Pget_external_count(creation.id()) != 0) {
    throw IoError(fmt::format("{}: its data are in another file", place_of(dataset.id())));
  }
}

// What netCDF-4 itself uses: the file format of HDF5 1.8, which all readers know.
Object file_access() {
  Object access = property_list(H5P_FILE_ACCESS);
  check(H5Pset_libver_bounds(access.id(), H5F_LIBVER_V18, H5F_LIBVER_V18), H5I_INVALID_HID,
        "choose a file format");
  // An object left open would hold back the last bytes: closing the file reports it instead.
  check(H5Pset_fclose_degree(access.id(), H5F_CLOSE_SEMI), H5I_INVALID_HID, "set how files close");
  // Nobody else knows the file yet, and some cluster file systems have no locks.
  check(H5Pset_file_locking(access.id(), false, true), H5I_INVALID_HID, "set how files are locked");
  return access;
}

// The same run gives the same bytes.
void leave_out_times(const Object& creation) {
  check(H5Pset_obj_track_times(creation.id(), false), H5I_INVALID_HID, "leave out times");
}

Object ordered_creation(hid_t list_class) {
  Object creation = property_list(list_class);
  check(H5Pset_link_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED),
        H5I_INVALID_HID, "order a group");
  check(H5Pset_attr_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED),
        H5I_INVALID_HID, "order attributes");
  leave_out_times(creation);
  return creation;
}

hsize_t chunk_rows(Type type, const std::vector<std::uint64_t>& row) {
  std::uint64_t row_bytes = type == Type::float32 ? sizeof(float) : sizeof(double);
  for (const std::uint64_t length : row) {
    row_bytes *= std::max<std::uint64_t>(length, 1);
  }
  return std::clamp<std::uint64_t>(chunk_bytes / row_bytes, 1, most_chunk_rows);
}

Object dataset_creation(Type type, const std::vector<std::uint64_t>& extent, bool growing) {
  Object creation = property_list(H5P_DATASET_CREATE);
  check(H5Pset_attr_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED),
        H5I_INVALID_HID, "order attributes");
  leave_out_times(creation);
  if (type == Type::float32 || type == Type::float64) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    check(H5Pset_fill_value(creation.id(), H5T_NATIVE_DOUBLE, &nan), H5I_INVALID_HID, "set a fill value");
  }
  if (growing) {
    std::vector<hsize_t> chunk(extent.begin(), extent.end());
    chunk[0] = chunk_rows(type, {extent.begin() + 1, extent.end()});
    check(H5Pset_chunk(creation.id(), static_cast<int>(chunk.size()), chunk.data()), H5I_INVALID_HID,
          "set chunks");
  }
  return creation;
}

Object dataspace(const std::vector<std::uint64_t>& extent, bool growing) {
  const std::vector<hsize_t> now(extent.begin(), extent.end());
  std::vector<hsize_t> most = now;
  if (growing) {
    most[0] = H5S_UNLIMITED;
  }
  return {check(H5Screate_simple(static_cast<int>(now.size()), now.data(), most.data()), H5I_INVALID_HID,
                "describe an array"),
          &H5Sclose};
}

}  // namespace

Group Group::create_group(const std::string& name) {
  const Object creation = ordered_creation(H5P_GROUP_CREATE);
  const Object links = property_list(H5P_LINK_CREATE);
  return Group(check(H5Gcreate2(id(), name.c_str(), links.id(), creation.id(), H5P_DEFAULT), id(),
                     fmt::format("create the group '{}' in", name)),
               &H5Gclose);
}

Group Group::open_group(const std::string& path) const {
  return Group(
      check(H5Gopen2(id(), path.c_str(), H5P_DEFAULT), id(), fmt::format("open the group '{}' in", path)),
      &H5Gclose);
}

Dataset Group::create(const std::string& name, Type type, const std::vector<std::uint64_t>& extent,
                      bool growing) {
  const Object text_type = variable_text_type();
  const Object space = dataspace(extent, growing);
  const Object creation = dataset_creation(type, extent, growing);
  Dataset dataset(
      check(H5Dcreate2(id(), name.c_str(), type == Type::text ? text_type.id() : memory_type(type),
                       space.id(), H5P_DEFAULT, creation.id(), H5P_DEFAULT),
            id(), fmt::format("create the array '{}' in", name)),
      &H5Dclose);
  if (type == Type::float32 || type == Type::float64) {
    dataset.set_fill_value_attribute(type);
  }
  return dataset;
}

Dataset Group::create_dataset(const std::string& name, Type type, const std::vector<std::uint64_t>& extent) {
  return create(name, type, extent, false);
}

Dataset Group::create_growing(const std::string& name, Type type, const std::vector<std::uint64_t>& row) {
  std::vector<std::uint64_t> extent{0};
  extent.insert(extent.end(), row.begin(), row.end());
  return create(name, type, extent, true);
}

Dataset Group::open_dataset(const std::string& path) const {
  Dataset dataset(
      check(H5Dopen2(id(), path.c_str(), H5P_DEFAULT), id(), fmt::format("open the array '{}' in", path)),
      &H5Dclose);
  require_own_data(dataset);
  return dataset;
}

Dataset Group::create_dimension(const std::string& name, std::uint64_t length) {
  // netCDF-4 knows a dimension without labels by this text in place of a name; its array holds nothing.
  const Object space = dataspace({length}, false);
  const Object creation = dataset_creation(Type::int64, {length}, false);
  Dataset dataset(check(H5Dcreate2(id(), name.c_str(), H5T_IEEE_F32BE, space.id(), H5P_DEFAULT, creation.id(),
                                   H5P_DEFAULT),
                        id(), fmt::format("create the dimension '{}' in", name)),
                  &H5Dclose);
  dataset.become_scale(fmt::format("This is a netCDF dimension but not a netCDF variable.{:10}", length));
  return dataset;
}

bool Group::contains(const std::string& path) const {
  // The library asks for one link at a time: a path whose first part is absent is an error to it.
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (check(H5Lexists(id(), part.c_str(), H5P_DEFAULT), id(), fmt::format("look for '{}' in", part)) == 0) {
      return false;
    }
    if (end == std::string::npos) {
      return true;
    }
  }
}

void Group::link(const std::string& name, const std::string& existing) {
  check(H5Lcreate_hard(id(), existing.c_str(), id(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT), id(),
        fmt::format("link '{}' as '{}' in", existing, name));
}

void Group::remove(const std::string& name) {
  check(H5Ldelete(id(), name.c_str(), H5P_DEFAULT), id(), fmt::format("remove '{}' from", name));
}

File File::create(const std::filesystem::path& path) {
  prepare_library();
  const Object access = file_access();
  const Object creation = ordered_creation(H5P_FILE_CREATE);
  const hid_t id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), access.id());
  if (id < 0) {
    fail(fmt::format("'{}'", path.string()), "create");
  }
  return {Object(id, &H5Fclose), path};
}

File File::open_as(const std::filesystem::path& path, unsigned mode) {
  prepare_library();
  const Object access = file_access();
  const hid_t id = H5Fopen(path.c_str(), mode, access.id());
  if (id < 0) {
    fail(fmt::format("'{}'", path.string()), "open");
  }
  return {Object(id, &H5Fclose), path};
}

File File::open(const std::filesystem::path& path) { return open_as(path, H5F_ACC_RDWR); }

File File::open_to_read(const std::filesystem::path& path) { return open_as(path, H5F_ACC_RDONLY); }

Group File::root() const {
  return Group(check(H5Gopen2(object_.id(), "/", H5P_DEFAULT), object_.id(), "open"), &H5Gclose);
}

void File::close() {
  check(H5Fflush(object_.id(), H5F_SCOPE_LOCAL), object_.id(), "write");
  if (H5Fclose(object_.forget()) < 0) {
    fail(fmt::format("'{}'", path_.string()), "close");
  }
}

std::string library_version() {
  prepare_library();
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("HDF5 {}.{}.{}", major, minor, release);
}

}  // namespace comigs::io::hdf5
