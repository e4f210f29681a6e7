#include <hdf5_hl.h>

#include <array>
#include <limits>
#include <utility>

#include "comigs/base/error.hpp"
#include "hdf5_support.hpp"

namespace comigs::io::hdf5 {
namespace {

herr_t keep_innermost(unsigned depth, const H5E_error2_t* error, void* text) {
  if (depth == 0 && error->desc != nullptr) {
    *static_cast<std::string*>(text) = error->desc;
  }
  return 0;
}

// A failed system call hides its reason in a list of numbers: "..., errno = 28, error message = 'No space
// ...', buf = ...".
std::string reason_in(const std::string& description) {
  constexpr std::string_view mark = "error message = '";
  const auto begin = description.find(mark);
  if (begin == std::string::npos) {
    return description;
  }
  const auto end = description.find('\'', begin + mark.size());
  return description.substr(begin + mark.size(), end - begin - mark.size());
}

Object scalar_space() { return {check(H5Screate(H5S_SCALAR), H5I_INVALID_HID, "make a scalar"), &H5Sclose}; }

Object list_space(std::size_t length) {
  const hsize_t extent = length;
  return {check(H5Screate_simple(1, &extent, nullptr), H5I_INVALID_HID, "make a list"), &H5Sclose};
}

std::vector<const char*> pointers_to(const std::vector<std::string>& texts) {
  std::vector<const char*> pointers;
  for (const std::string& text : texts) {
    pointers.push_back(text.c_str());
  }
  return pointers;
}

std::size_t element_count(const Dataset& dataset) {
  std::size_t size = 1;
  for (const std::uint64_t extent : dataset.extent()) {
    if (__builtin_mul_overflow(size, extent, &size)) {
      throw IoError(fmt::format("{}: its extent overflows", place_of(dataset.id())));
    }
  }
  return size;
}

// A damaged or hostile extent must not become an allocation: the file must be large enough for what it
// claims.
void check_stored(const Dataset& dataset, const Object& type) {
  const Object file(check(H5Iget_file_id(dataset.id()), dataset.id(), "find the file of"), &H5Fclose);
  hsize_t size_bytes = 0;
  check(H5Fget_filesize(file.id(), &size_bytes), dataset.id(), "size the file of");
  const std::size_t count = element_count(dataset);
  if (count > size_bytes / H5Tget_size(type.id())) {
    throw IoError(fmt::format("{}: {} values claimed, more than a file of {} bytes holds",
                              place_of(dataset.id()), count, size_bytes));
  }
}

// The texts that the library has allocated.
std::vector<std::string> taken(const std::vector<char*>& pointers) {
  std::vector<std::string> texts;
  for (char* const pointer : pointers) {
    texts.emplace_back(pointer == nullptr ? "" : pointer);
    H5free_memory(pointer);
  }
  return texts;
}

void check_size(const Dataset& dataset, std::size_t count) {
  if (const std::size_t size = element_count(dataset); size != count) {
    throw IoError(fmt::format("{}: {} values given, {} expected", place_of(dataset.id()), count, size));
  }
}

template <class Value>
void write_all(const Dataset& dataset, hid_t type, std::size_t count, const Value* values) {
  check_size(dataset, count);
  check(H5Dwrite(dataset.id(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), dataset.id(), "write");
}

}  // namespace

void fail(const std::string& place, std::string_view action) {
  std::string description = "no reason given";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, &keep_innermost, &description);
  H5Eclear2(H5E_DEFAULT);
  throw IoError(fmt::format("cannot {} {}: {}", action, place, reason_in(description)));
}

std::string place_of(hid_t id) {
  // Any question to the library would clear the errors that the caller is about to report.
  const hid_t errors = H5Eget_current_stack();
  std::string place = "an HDF5 file";
  if (H5Iis_valid(id) > 0) {
    std::array<char, 4096> file{}, object{};
    H5Fget_name(id, file.data(), file.size());
    H5Iget_name(id, object.data(), object.size());
    place = fmt::format("'{}' ({})", file.data(), object.data());
  }
  H5Eset_current_stack(errors);
  return place;
}

hid_t memory_type(Type type) {
  switch (type) {
    case Type::int64:
      return H5T_NATIVE_INT64;
    case Type::float32:
      return H5T_NATIVE_FLOAT;
    default:
      return H5T_NATIVE_DOUBLE;
  }
}

Object variable_text_type() {
  Object type(check(H5Tcopy(H5T_C_S1), H5I_INVALID_HID, "copy a type"), &H5Tclose);
  check(H5Tset_size(type.id(), H5T_VARIABLE), H5I_INVALID_HID, "size a type");
  check(H5Tset_cset(type.id(), H5T_CSET_UTF8), H5I_INVALID_HID, "encode a type");
  return type;
}

Object property_list(hid_t list_class) {
  return {check(H5Pcreate(list_class), H5I_INVALID_HID, "make a property list"), &H5Pclose};
}

Object::Object(Object&& other) noexcept : id_(std::exchange(other.id_, -1)), closer_(other.closer_) {}

Object& Object::operator=(Object&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(closer_, other.closer_);
  return *this;
}

Object::~Object() { release(); }

void Object::release() noexcept {
  if (id_ >= 0) {
    closer_(forget());
  }
}

std::int64_t Object::forget() noexcept { return std::exchange(id_, -1); }

void Object::set_attribute_data(const std::string& name, std::int64_t type, std::int64_t space,
                                const void* data) {
  const std::string action = fmt::format("write the attribute '{}' of", name);
  if (check(H5Aexists(id_, name.c_str()), id_, action) > 0) {
    check(H5Adelete(id_, name.c_str()), id_, action);
  }
  const Object attribute(
      check(H5Acreate2(id_, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), id_, action), &H5Aclose);
  check(H5Awrite(attribute.id(), type, data), id_, action);
}

void Object::set_attribute(const std::string& name, const std::string& value) {
  const char* const pointer = value.c_str();
  set_attribute_data(name, variable_text_type().id(), scalar_space().id(), &pointer);
}

void Object::set_attribute(const std::string& name, std::int64_t value) {
  set_attribute_data(name, H5T_NATIVE_INT64, scalar_space().id(), &value);
}

void Object::set_attribute(const std::string& name, const std::vector<std::string>& values) {
  set_attribute_data(name, variable_text_type().id(), list_space(values.size()).id(),
                     pointers_to(values).data());
}

std::string Object::text_attribute(const std::string& name) const {
  return read_text_attribute(name, true).front();
}

std::vector<std::string> Object::texts_attribute(const std::string& name) const {
  return read_text_attribute(name, false);
}

bool Object::has_attribute(const std::string& name) const {
  return check(H5Aexists(id_, name.c_str()), id_, fmt::format("look for the attribute '{}' of", name)) > 0;
}

std::vector<std::string> Object::read_text_attribute(const std::string& name, bool single) const {
  const std::string action = fmt::format("read the attribute '{}' of", name);
  const Object attribute(check(H5Aopen(id_, name.c_str(), H5P_DEFAULT), id_, action), &H5Aclose);
  const Object type(check(H5Aget_type(attribute.id()), id_, action), &H5Tclose);
  const Object space(check(H5Aget_space(attribute.id()), id_, action), &H5Sclose);
  constexpr hssize_t most = 1 << 12;  // an attribute has 64 KiB at most
  const hssize_t count = H5Sget_simple_extent_npoints(space.id());
  if (H5Tis_variable_str(type.id()) <= 0 || count < 1 || count > (single ? 1 : most)) {
    throw IoError(fmt::format("cannot {} {}: it is not {}", action, place_of(id_),
                              single ? "one text" : "a list of texts"));
  }
  std::vector<char*> pointers(static_cast<std::size_t>(count), nullptr);
  check(H5Aread(attribute.id(), type.id(), pointers.data()), id_, action);
  return taken(pointers);
}

std::int64_t Object::number_attribute(const std::string& name) const {
  const std::string action = fmt::format("read the attribute '{}' of", name);
  const Object attribute(check(H5Aopen(id_, name.c_str(), H5P_DEFAULT), id_, action), &H5Aclose);
  const Object type(check(H5Aget_type(attribute.id()), id_, action), &H5Tclose);
  const Object space(check(H5Aget_space(attribute.id()), id_, action), &H5Sclose);
  if (H5Tget_class(type.id()) != H5T_INTEGER || H5Sget_simple_extent_npoints(space.id()) != 1) {
    throw IoError(fmt::format("cannot {} {}: it is not one whole number", action, place_of(id_)));
  }
  std::int64_t value = 0;
  check(H5Aread(attribute.id(), H5T_NATIVE_INT64, &value), id_, action);
  return value;
}

void Dataset::set_fill_value_attribute(Type type) {
  constexpr auto nan = std::numeric_limits<double>::quiet_NaN();
  constexpr auto narrow_nan = std::numeric_limits<float>::quiet_NaN();
  const void* const value = type == Type::float32 ? static_cast<const void*>(&narrow_nan) : &nan;
  set_attribute_data("_FillValue", memory_type(type), list_space(1).id(), value);
}

void Dataset::write(std::span<const std::int64_t> values) {
  write_all(*this, H5T_NATIVE_INT64, values.size(), values.data());
}
void Dataset::write(std::span<const float> values) {
  write_all(*this, H5T_NATIVE_FLOAT, values.size(), values.data());
}
void Dataset::write(std::span<const double> values) {
  write_all(*this, H5T_NATIVE_DOUBLE, values.size(), values.data());
}
void Dataset::write(const std::vector<std::string>& values) {
  write_all(*this, variable_text_type().id(), values.size(), pointers_to(values).data());
}

void Dataset::append_row(std::span<const double> values) {
  const std::vector<std::uint64_t> now = extent();
  if (now.size() != 2 || now[1] != values.size()) {
    throw IoError(fmt::format("{}: a row of {} values given, {} expected", place_of(id()), values.size(),
                              now.size() == 2 ? now[1] : 0));
  }
  const std::array<hsize_t, 2> start{now[0], 0}, count{1, now[1]}, longer{now[0] + 1, now[1]};
  check(H5Dset_extent(id(), longer.data()), id(), "lengthen");
  const Object target(check(H5Dget_space(id()), id(), "read the shape of"), &H5Sclose);
  const Object source(check(H5Screate_simple(2, count.data(), nullptr), id(), "describe a row of"),
                      &H5Sclose);
  check(H5Sselect_hyperslab(target.id(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr), id(),
        "choose a row of");
  check(H5Dwrite(id(), H5T_NATIVE_DOUBLE, source.id(), target.id(), H5P_DEFAULT, values.data()), id(),
        "write");
}

std::vector<std::uint64_t> Dataset::extent() const {
  const Object space(check(H5Dget_space(id()), id(), "read the shape of"), &H5Sclose);
  const int rank = check(H5Sget_simple_extent_ndims(space.id()), id(), "read the shape of");
  std::vector<hsize_t> extent(static_cast<std::size_t>(rank));
  check(H5Sget_simple_extent_dims(space.id(), extent.data(), nullptr), id(), "read the shape of");
  return {extent.begin(), extent.end()};
}

bool Dataset::is_as_made(Type type, const std::vector<std::uint64_t>& expected, bool growing) const {
  const Object space(check(H5Dget_space(id()), id(), "read the shape of"), &H5Sclose);
  const Object stored(check(H5Dget_type(id()), id(), "read the type of"), &H5Tclose);
  const H5T_class_t kind = type == Type::text ? H5T_STRING : type == Type::int64 ? H5T_INTEGER : H5T_FLOAT;
  if (extent() != expected || H5Tget_class(stored.id()) != kind) {
    return false;
  }
  std::vector<hsize_t> most(expected.size());
  check(H5Sget_simple_extent_dims(space.id(), nullptr, most.data()), id(), "read the shape of");
  return growing == (!most.empty() && most[0] == H5S_UNLIMITED);
}

void Dataset::read(std::span<float> values) const {
  check_size(*this, values.size());
  check(H5Dread(id(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), id(), "read");
}

void Dataset::read(std::span<double> values) const {
  check_size(*this, values.size());
  check(H5Dread(id(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), id(), "read");
}

std::vector<std::string> Dataset::read_texts() const {
  const Object type(check(H5Dget_type(id()), id(), "read"), &H5Tclose);
  if (H5Tis_variable_str(type.id()) <= 0) {
    throw IoError(fmt::format("cannot read {}: it holds no texts", place_of(id())));
  }
  check_stored(*this, type);
  std::vector<char*> pointers(element_count(*this), nullptr);
  check(H5Dread(id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()), id(), "read");
  return taken(pointers);
}

void Dataset::become_scale(const std::string& name) {
  check(H5DSset_scale(id(), name.c_str()), id(), "make a dimension of");
}

void Dataset::attach_scale(const Dataset& scale, unsigned index) {
  check(H5DSattach_scale(id(), scale.id(), index), id(), "name a dimension of");
}

void Dataset::detach_scale(const Dataset& scale, unsigned index) {
  if (check(H5DSis_attached(id(), scale.id(), index), id(), "look at a dimension of") > 0) {
    check(H5DSdetach_scale(id(), scale.id(), index), id(), "unname a dimension of");
  }
}

}  // namespace comigs::io::hdf5
