// HDF5 files that are also netCDF-4: groups, datasets with named dimensions, attributes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comigs/io/growing_file.hpp"

namespace comigs::io::hdf5 {

enum class Type { int64, float32, float64, text };

/// Owns one HDF5 identifier. Every operation here throws IoError with the file, the object and HDF5's own
/// reason.
class Object {
 public:
  using Closer = int (*)(std::int64_t);
  Object(std::int64_t id, Closer closer) noexcept : id_(id), closer_(closer) {}
  Object(Object&& other) noexcept;
  Object& operator=(Object&& other) noexcept;
  ~Object();

  [[nodiscard]] std::int64_t id() const noexcept { return id_; }
  /// Sets or replaces an attribute.
  void set_attribute(const std::string& name, const std::string& value);
  void set_attribute(const std::string& name, std::int64_t value);
  void set_attribute(const std::string& name, const std::vector<std::string>& values);
  /// The attribute's value; an absent one, or one of another kind, is an error.
  [[nodiscard]] std::string text_attribute(const std::string& name) const;
  /// The same for a list of texts.
  [[nodiscard]] std::vector<std::string> texts_attribute(const std::string& name) const;
  [[nodiscard]] bool has_attribute(const std::string& name) const;
  [[nodiscard]] std::int64_t number_attribute(const std::string& name) const;

 protected:
  void set_attribute_data(const std::string& name, std::int64_t type, std::int64_t space, const void* data);
  [[nodiscard]] std::vector<std::string> read_text_attribute(const std::string& name, bool single) const;

 private:
  friend class File;
  void release() noexcept;
  std::int64_t forget() noexcept;  // gives the identifier away unclosed
  std::int64_t id_;
  Closer closer_;
};

/// A typed array. Spans hold whole rows of all but the first dimension, row-major.
class Dataset : public Object {
 public:
  using Object::Object;
  void write(std::span<const std::int64_t> values);
  void write(std::span<const float> values);
  void write(std::span<const double> values);
  void write(const std::vector<std::string>& values);
  /// Lengthens the first dimension by one and fills it.
  void append_row(std::span<const double> values);
  [[nodiscard]] std::vector<std::uint64_t> extent() const;
  /// Whether it was made with this type, as one that grows or not, and has the expected extent now.
  [[nodiscard]] bool is_as_made(Type type, const std::vector<std::uint64_t>& expected, bool growing) const;
  /// All of it. Numbers are converted; texts must be of variable length, as `write` makes them.
  void read(std::span<float> values) const;
  void read(std::span<double> values) const;
  [[nodiscard]] std::vector<std::string> read_texts() const;

  /// Makes this one-dimensional array the dimension `name`, whose labels it holds.
  void become_scale(const std::string& name);
  /// Names the dimension `index` of this array after `scale`.
  void attach_scale(const Dataset& scale, unsigned index);
  /// Makes `scale` forget this array, which is about to go. Nothing happens where they do not belong
  /// together.
  void detach_scale(const Dataset& scale, unsigned index);

 private:
  friend class Group;
  void set_fill_value_attribute(Type type);
};

/// A folder inside the file; children stay in the order in which they were made.
class Group : public Object {
 public:
  using Object::Object;
  [[nodiscard]] Group create_group(const std::string& name);
  /// A group whose children come in the order of their names: adding one changes less of the file.
  [[nodiscard]] Group create_sorted_group(const std::string& name);
  [[nodiscard]] Group open_group(const std::string& path) const;
  /// Floating-point arrays start as NaN, and say so in `_FillValue`.
  [[nodiscard]] Dataset create_dataset(const std::string& name, Type type,
                                       const std::vector<std::uint64_t>& extent);
  /// A float64 array without rows yet, each of `columns` numbers, that `append_row` lengthens. The first row
  /// takes the room of `rows` of them; where more come, they take as much again.
  [[nodiscard]] Dataset create_growing(const std::string& name, std::uint64_t columns, std::uint64_t rows);
  /// An array whose rows, of extent `row`, are those of the array at the absolute path `source`, from the
  /// column `first` on: as long as that, always.
  [[nodiscard]] Dataset create_view(const std::string& name, Type type, const std::vector<std::uint64_t>& row,
                                    const std::string& source, std::uint64_t first);
  [[nodiscard]] Dataset open_dataset(const std::string& path) const;
  /// A dimension of this length that has a name but no labels, as netCDF-4 stores it.
  [[nodiscard]] Dataset create_dimension(const std::string& name, std::uint64_t length);
  /// Whether every part of the path is there.
  [[nodiscard]] bool contains(const std::string& path) const;
  /// Gives the object at the absolute path `existing` the further name `name` in this group.
  void link(const std::string& name, const std::string& existing);
  /// Removes a name, and with the last name the object.
  void remove(const std::string& name);

 private:
  Group create_group(const std::string& name, const Object& creation);
  Dataset create(const std::string& name, Type type, const Object& space, const Object& creation);
};

/// An open file. `close` reports what the destructor cannot: that the last bytes did not reach the file.
class File {
 public:
  [[nodiscard]] static File create(const std::filesystem::path& path);  ///< empties a file that is there
  [[nodiscard]] static File open(const std::filesystem::path& path);    ///< for reading and writing
  [[nodiscard]] static File open_to_read(const std::filesystem::path& path);
  /// For reading and writing within a step of `file`, which must outlive it. Nothing is in the file itself
  /// before the step's end.
  [[nodiscard]] static File open(GrowingFile& file);
  [[nodiscard]] Group root() const;
  /// All groups and datasets must have gone before.
  void close();

 private:
  static File open_as(const std::filesystem::path& path, unsigned mode, const Object& access);
  File(Object object, std::filesystem::path path) : object_(std::move(object)), path_(std::move(path)) {}
  Object object_;
  std::filesystem::path path_;
};

/// "HDF5 1.10.8": the library in use, for records.
[[nodiscard]] std::string library_version();

}  // namespace comigs::io::hdf5
