#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <numeric>
#include <string_view>
#include <utility>

#include "comigs/base/error.hpp"
#include "hdf5_driver.hpp"
#include "hdf5_support.hpp"

namespace comigs::io::hdf5 {
namespace {

// Room that a growing array takes at once, at most: readers without the new end of the file at hand find
// their rows in what is there already. An index of so many pieces stays one block.
constexpr std::uint64_t most_chunk_bytes = std::uint64_t{1} << 26, most_chunks = 64;
// Links of a group that stay in its header: one block changes where one is added.
constexpr unsigned most_links = 65535;

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

Object creation_of(hid_t dataset) {
  return {check(H5Dget_create_plist(dataset), dataset, "look at"), &H5Pclose};
}

// A view of an array of the same file, which is no view itself.
bool views_own_data(const Dataset& dataset, const Object& creation) {
  std::array<char, 256> text{};
  std::size_t count = 0;
  check(H5Pget_virtual_count(creation.id(), &count), dataset.id(), "look at");
  for (std::size_t i = 0; i < count; ++i) {
    check(H5Pget_virtual_filename(creation.id(), i, text.data(), text.size()), dataset.id(), "look at");
    if (std::string_view(text.data()) != ".") return false;
    check(H5Pget_virtual_dsetname(creation.id(), i, text.data(), text.size()), dataset.id(), "look at");
    const Object source(check(H5Dopen2(dataset.id(), text.data(), H5P_DEFAULT), dataset.id(), "look at"),
                        &H5Dclose);
    const Object made = creation_of(source.id());
    if (H5Pget_layout(made.id()) == H5D_VIRTUAL || H5Pget_external_count(made.id()) != 0) return false;
  }
  return true;
}

// Nor must an array whose data lie in other files.
void require_own_data(const Dataset& dataset) {
  const Object creation = creation_of(dataset.id());
  const bool own = H5Pget_layout(creation.id()) == H5D_VIRTUAL ? views_own_data(dataset, creation)
                                                               : H5Pget_external_count(creation.id()) == 0;
  if (!own)
    throw IoError(
        fmt::format("{}: its data are in another file, or a view of a view", place_of(dataset.id())));
}

// What netCDF-4 itself uses: the file format of HDF5 1.8, which all readers know, but for views, which came
// with 1.10.
Object file_access() {
  Object access = property_list(H5P_FILE_ACCESS);
  check(H5Pset_libver_bounds(access.id(), H5F_LIBVER_V18, H5F_LIBVER_V110), H5I_INVALID_HID,
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

Object sorted_creation(hid_t list_class) {
  Object creation = property_list(list_class);
  check(H5Pset_link_phase_change(creation.id(), most_links, most_links), H5I_INVALID_HID, "lay out a group");
  leave_out_times(creation);
  return creation;
}

Object ordered_creation(hid_t list_class) {
  Object creation = sorted_creation(list_class);
  check(H5Pset_link_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED),
        H5I_INVALID_HID, "order a group");
  check(H5Pset_attr_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED),
        H5I_INVALID_HID, "order attributes");
  return creation;
}

Object dataset_creation(Type type) {
  Object creation = property_list(H5P_DATASET_CREATE);
  check(H5Pset_attr_creation_order(creation.id(), H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED),
        H5I_INVALID_HID, "order attributes");
  leave_out_times(creation);
  if (type == Type::float32 || type == Type::float64) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    check(H5Pset_fill_value(creation.id(), H5T_NATIVE_DOUBLE, &nan), H5I_INVALID_HID, "set a fill value");
  }
  return creation;
}

using Extent = std::vector<hsize_t>;

Object dataspace(const Extent& now, const Extent& most) {
  return {check(H5Screate_simple(static_cast<int>(now.size()), now.data(), most.data()), H5I_INVALID_HID,
                "describe an array"),
          &H5Sclose};
}

Object dataspace(const std::vector<std::uint64_t>& extent) {
  const Extent now(extent.begin(), extent.end());
  return dataspace(now, now);
}

// No rows yet, each of extent `row`.
Object growing_space(const std::vector<std::uint64_t>& row) {
  Extent now(row.begin(), row.end());
  now.insert(now.begin(), 0);
  Extent most = now;
  most[0] = H5S_UNLIMITED;
  return dataspace(now, most);
}

// Rows go to and from the file as they are: a cache would write all the room of a growing array again.
Object dataset_access() {
  Object access = property_list(H5P_DATASET_ACCESS);
  check(H5Pset_chunk_cache(access.id(), 0, 0, 0.0), H5I_INVALID_HID, "leave out a cache");
  return access;
}

// All rows of a growing array that there will be; of each, the part `row` from `start` on.
void select_rows(const Object& space, Extent start, Extent row) {
  start.insert(start.begin(), 0);
  row.insert(row.begin(), 1);
  Extent count(row.size(), 1);
  count[0] = H5S_UNLIMITED;
  check(H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, start.data(), row.data(), count.data(), row.data()),
        H5I_INVALID_HID, "choose rows");
}

}  // namespace

Group Group::create_group(const std::string& name, const Object& creation) {
  return Group(check(H5Gcreate2(id(), name.c_str(), H5P_DEFAULT, creation.id(), H5P_DEFAULT), id(),
                     fmt::format("create the group '{}' in", name)),
               &H5Gclose);
}

Group Group::create_group(const std::string& name) {
  return create_group(name, ordered_creation(H5P_GROUP_CREATE));
}

Group Group::create_sorted_group(const std::string& name) {
  return create_group(name, sorted_creation(H5P_GROUP_CREATE));
}

Group Group::open_group(const std::string& path) const {
  return Group(
      check(H5Gopen2(id(), path.c_str(), H5P_DEFAULT), id(), fmt::format("open the group '{}' in", path)),
      &H5Gclose);
}

Dataset Group::create(const std::string& name, Type type, const Object& space, const Object& creation) {
  const Object text_type = variable_text_type();
  Dataset dataset(
      check(H5Dcreate2(id(), name.c_str(), type == Type::text ? text_type.id() : memory_type(type),
                       space.id(), H5P_DEFAULT, creation.id(), dataset_access().id()),
            id(), fmt::format("create the array '{}' in", name)),
      &H5Dclose);
  if (type == Type::float32 || type == Type::float64) {
    dataset.set_fill_value_attribute(type);
  }
  return dataset;
}

Dataset Group::create_dataset(const std::string& name, Type type, const std::vector<std::uint64_t>& extent) {
  return create(name, type, dataspace(extent), dataset_creation(type));
}

Dataset Group::create_growing(const std::string& name, std::uint64_t columns, std::uint64_t rows) {
  const std::uint64_t most_rows = std::max<std::uint64_t>(most_chunk_bytes / (columns * sizeof(double)), 1);
  const std::array<hsize_t, 2> chunk{
      std::max({std::min(rows, most_rows), rows / most_chunks, std::uint64_t{1}}), columns};
  const Object creation = dataset_creation(Type::float64);
  check(H5Pset_chunk(creation.id(), 2, chunk.data()), H5I_INVALID_HID, "set chunks");
  check(H5Pset_fill_time(creation.id(), H5D_FILL_TIME_NEVER), H5I_INVALID_HID, "leave room as it is");
  return create(name, Type::float64, growing_space({columns}), creation);
}

Dataset Group::create_view(const std::string& name, Type type, const std::vector<std::uint64_t>& row,
                           const std::string& source, std::uint64_t first) {
  const Extent extent(row.begin(), row.end());
  const hsize_t count = std::accumulate(extent.begin(), extent.end(), hsize_t{1}, std::multiplies<>());
  const Object view = growing_space(row), selected = growing_space(row),
               viewed = growing_space({first + count});
  select_rows(selected, Extent(extent.size(), 0), extent);
  select_rows(viewed, {first}, {count});
  const Object creation = dataset_creation(type);
  check(H5Pset_virtual(creation.id(), selected.id(), ".", source.c_str(), viewed.id()), H5I_INVALID_HID,
        "describe a view");
  return create(name, type, view, creation);
}

Dataset Group::open_dataset(const std::string& path) const {
  Dataset dataset(check(H5Dopen2(id(), path.c_str(), dataset_access().id()), id(),
                        fmt::format("open the array '{}' in", path)),
                  &H5Dclose);
  require_own_data(dataset);
  return dataset;
}

Dataset Group::create_dimension(const std::string& name, std::uint64_t length) {
  // netCDF-4 knows a dimension without labels by this text in place of a name; its array holds nothing.
  const Object space = dataspace({length}), creation = dataset_creation(Type::int64);
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

File File::open_as(const std::filesystem::path& path, unsigned mode, const Object& access) {
  const hid_t id = H5Fopen(path.c_str(), mode, access.id());
  if (id < 0) {
    fail(fmt::format("'{}'", path.string()), "open");
  }
  return {Object(id, &H5Fclose), path};
}

File File::open(const std::filesystem::path& path) {
  prepare_library();
  return open_as(path, H5F_ACC_RDWR, file_access());
}

File File::open_to_read(const std::filesystem::path& path) {
  prepare_library();
  return open_as(path, H5F_ACC_RDONLY, file_access());
}

File File::open(GrowingFile& file) {
  prepare_library();
  const Object access = file_access();
  read_and_write_through(access, file);
  return open_as(file.path(), H5F_ACC_RDWR, access);
}

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
