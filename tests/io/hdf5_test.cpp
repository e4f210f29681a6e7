// The HDF5 wrappers against the library's own high-level readers.
#include <hdf5.h>
#include <hdf5_hl.h>
#include <sys/resource.h>

#include <boost/test/unit_test.hpp>
#include <cmath>
#include <csignal>
#include <fstream>

#include "comigs/base/error.hpp"
#include "comigs/io/hdf5.hpp"
#include "support/temporary_folder.hpp"

using namespace comigs;
using io::hdf5::Dataset;
using io::hdf5::File;
using io::hdf5::Group;
using io::hdf5::Type;

namespace {

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

BOOST_FIXTURE_TEST_CASE(rows_are_appended_across_openings, TemporaryFolder) {
  const auto path = folder / "a.h5";
  {
    File file = File::create(path);
    Group group = file.root().create_group("group");
    const Dataset array = group.create_growing("array", 6, 200);
  }
  for (int round = 0; round < 200; ++round) {
    File file = File::open(path);
    const std::vector<double> row(6, static_cast<double>(round));
    file.root().open_dataset("group/array").append_row(row);
    file.close();
  }
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  std::vector<float> values(200 * 6);
  BOOST_REQUIRE(H5LTread_dataset_float(file, "group/array", values.data()) >= 0);
  H5Fclose(file);
  for (std::size_t i = 0; i < values.size(); ++i) {
    BOOST_REQUIRE(values[i] == static_cast<float>(i / 6));
  }
  BOOST_TEST(std::filesystem::file_size(path) < 40'000U);
}

BOOST_FIXTURE_TEST_CASE(arrays_without_values_are_missing, TemporaryFolder) {
  const auto path = folder / "a.h5";
  File file = File::create(path);
  { const Dataset array = file.root().create_dataset("array", Type::float64, {3}); }
  file.close();
  const hid_t read = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  std::vector<double> values(3, 1.0);
  BOOST_REQUIRE(H5LTread_dataset_double(read, "array", values.data()) >= 0);
  double fill = 0.0;
  BOOST_REQUIRE(H5LTget_attribute_double(read, "array", "_FillValue", &fill) >= 0);
  H5Fclose(read);
  BOOST_TEST(std::isnan(fill));
  BOOST_TEST(std::isnan(values[0] + values[1] + values[2]));
}

BOOST_FIXTURE_TEST_CASE(attributes_are_replaced, TemporaryFolder) {
  const auto path = folder / "a.h5";
  File file = File::create(path);
  {
    Group root = file.root();
    root.set_attribute("number", 1);
    root.set_attribute("number", 2);
    root.set_attribute("long",
                       std::string(100'000, 'x'));  // over HDF5's limit for attributes of the old kind
    root.set_attribute("empty", "");
    root.set_attribute("list", std::vector<std::string>{"ä", ""});
  }
  file.close();
  const hid_t read = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  int number = 0;
  BOOST_REQUIRE(H5LTget_attribute_int(read, "/", "number", &number) >= 0);
  BOOST_TEST(number == 2);
  char* text = nullptr;
  BOOST_REQUIRE(H5LTget_attribute_string(read, "/", "long", reinterpret_cast<char*>(&text)) >= 0);
  BOOST_TEST(std::string(text).size() == 100'000U);
  H5free_memory(text);
  H5Fclose(read);
}

BOOST_FIXTURE_TEST_CASE(links_are_the_same_object, TemporaryFolder) {
  File file = File::create(folder / "a.h5");
  {
    Group root = file.root();
    Dataset labels = root.create_dataset("labels", Type::int64, {2});
    Group group = root.create_group("group");
    group.link("labels", "/labels");
    labels.write(std::vector<std::int64_t>{4, 5});
    BOOST_TEST(group.contains("labels"));
    BOOST_TEST(!group.contains("other"));
    std::vector<std::int64_t> values(2);
    BOOST_REQUIRE(H5LTread_dataset(group.id(), "labels", H5T_NATIVE_INT64, values.data()) >= 0);
    BOOST_TEST(values[1] == 5);
  }
  file.close();
}

BOOST_FIXTURE_TEST_CASE(what_was_written_is_read_back, TemporaryFolder) {
  const auto path = folder / "a.h5";
  {
    File file = File::create(path);
    Group group = file.root().create_group("group");
    group.set_attribute("text", "Grüße");
    group.set_attribute("nothing", "");
    group.set_attribute("number", std::int64_t{7});
    group.set_attribute("list", std::vector<std::string>{"one", "", "日本語"});
    group.create_dataset("numbers", Type::float32, {2, 2}).write(std::vector<float>{1, 2, 3, 4});
    group.create_dataset("texts", Type::text, {3}).write(std::vector<std::string>{"a", "", "日本語"});
  }
  const File file = File::open_to_read(path);
  const Group root = file.root(), group = root.open_group("group");
  BOOST_TEST(group.text_attribute("text") == "Grüße");
  BOOST_TEST(group.text_attribute("nothing").empty());
  BOOST_TEST(group.texts_attribute("list") == (std::vector<std::string>{"one", "", "日本語"}),
             boost::test_tools::per_element());
  BOOST_TEST(group.texts_attribute("text") == std::vector<std::string>{"Grüße"},
             boost::test_tools::per_element());
  BOOST_TEST(group.has_attribute("list"));
  BOOST_TEST(!group.has_attribute("absent"));
  std::vector<float> numbers(4), more(5);
  group.open_dataset("numbers").read(numbers);
  BOOST_TEST(numbers == (std::vector<float>{1, 2, 3, 4}), boost::test_tools::per_element());
  BOOST_TEST(group.open_dataset("texts").read_texts() == (std::vector<std::string>{"a", "", "日本語"}),
             boost::test_tools::per_element());
  BOOST_TEST(root.contains("group/numbers"));
  BOOST_TEST(root.contains("/group/numbers"));
  BOOST_TEST(!root.contains("group/other"));
  BOOST_TEST(!root.contains("other/numbers"));
  BOOST_CHECK_THROW((void)group.text_attribute("number"), IoError);
  BOOST_CHECK_THROW((void)group.text_attribute("absent"), IoError);
  BOOST_CHECK_THROW((void)group.text_attribute("list"), IoError);
  BOOST_CHECK_THROW((void)group.texts_attribute("number"), IoError);
  BOOST_CHECK_THROW((void)group.open_dataset("numbers").read_texts(), IoError);
  BOOST_CHECK_THROW(group.open_dataset("numbers").read(more), IoError);
  BOOST_CHECK_THROW(group.open_dataset("texts").read(std::span(more).first(3)), IoError);
}

BOOST_FIXTURE_TEST_CASE(a_removed_array_is_forgotten_by_its_labels, TemporaryFolder) {
  File file = File::create(folder / "a.h5");
  {
    Group root = file.root();
    Dataset labels = root.create_dataset("x", Type::int64, {2});
    labels.become_scale("x");
    Dataset array = root.create_dataset("array", Type::float32, {2});
    array.attach_scale(labels, 0);
    BOOST_TEST(H5Aexists(labels.id(), "REFERENCE_LIST") > 0);
    array.detach_scale(labels, 0);
    array.detach_scale(labels, 0);  // once is enough
    BOOST_TEST(H5Aexists(labels.id(), "REFERENCE_LIST") == 0);
    root.remove("array");
    BOOST_TEST(!root.contains("array"));
    BOOST_CHECK_THROW(root.remove("array"), IoError);
  }
  file.close();
}

BOOST_FIXTURE_TEST_CASE(errors_are_short_and_name_the_place, TemporaryFolder) {
  BOOST_CHECK_EXCEPTION((void)File::open(folder / "absent.h5"), IoError, [](const IoError& error) {
    return has(error.what(), "absent.h5': No such file or directory");
  });
  std::ofstream(folder / "text.h5") << "this is text";
  BOOST_CHECK_EXCEPTION((void)File::open(folder / "text.h5"), IoError, [](const IoError& error) {
    return has(error.what(), "text.h5'") && has(error.what(), "signature");
  });
  File file = File::create(folder / "a.h5");
  Group root = file.root();
  Group group = root.create_group("group");
  BOOST_CHECK_EXCEPTION((void)root.create_group("group"), IoError, [](const IoError& error) {
    return has(error.what(), "a.h5' (/)") && has(error.what(), "exists");
  });
  BOOST_CHECK_THROW((void)root.open_dataset("absent"), IoError);
  Dataset array = group.create_growing("array", 3, 1);
  BOOST_CHECK_THROW(array.append_row(std::vector<double>{1.0}), IoError);
  BOOST_CHECK_THROW(array.write(std::vector<double>{1.0}), IoError);
  // Something is still open: the last bytes would not be in the file.
  BOOST_CHECK_THROW(file.close(), IoError);
}

BOOST_FIXTURE_TEST_CASE(full_disk_is_said_when_closing, TemporaryFolder) {
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{20'000, before.rlim_max};
  const auto fill = [&] {
    File file = File::create(folder / "a.h5");
    {
      Dataset array = file.root().create_dataset("array", Type::float64, {10'000});
      array.write(std::vector<double>(10'000, 1.0));
    }
    file.close();
  };
  ::setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    fill();
  } catch (const IoError& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  BOOST_TEST(has(message, "File too large"), message);
  BOOST_TEST(has(message, "a.h5"), message);
}
