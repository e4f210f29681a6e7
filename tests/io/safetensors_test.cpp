// Safetensors: what is written is read back; a hostile header is a DataError and nothing worse.
#include <array>
#include <boost/test/data/test_case.hpp>
#include <boost/test/unit_test.hpp>
#include <cstring>
#include <fstream>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/safetensors.hpp"
#include "support/temporary_folder.hpp"

using namespace comigs;
using io::Dtype;
using io::NamedTensor;
using io::SafetensorsFile;

namespace {

std::string file_of(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file + header + std::string(data_bytes, '\1');
}

std::string with_length(std::uint64_t length, const std::string& rest) {
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file + rest;
}

std::string refusal(const std::filesystem::path& path) {
  try {
    const SafetensorsFile file(path);
  } catch (const DataError& error) {
    return error.what();
  }
  return "nothing was thrown";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct Hostile {
  const char* name;
  std::string file;
  const char* reason;
};
std::ostream& operator<<(std::ostream& stream, const Hostile& hostile) { return stream << hostile.name; }

std::vector<Hostile> hostile_files() {
  const auto tensor = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  const std::string good = tensor("F32", "[2]", "[0,8]");
  const auto two = [](const std::string& first, const std::string& second) {
    return R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)" + first +
           R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":)" + second + "}}";
  };
  std::string deep = "{\"a\":";
  deep += std::string(100'000, '[') + std::string(100'000, ']') + "}";
  std::string long_shape = "1";
  for (int i = 0; i < 1000; ++i) {
    long_shape += ",1";
  }
  return {
      {"three bytes", "abc", "it is truncated: it has 3 bytes"},
      {"header of exabytes", with_length(UINT64_MAX, good), "the format allows 100000000"},
      {"header just over the limit", with_length(100'000'001, good), "the format allows 100000000"},
      {"header beyond the end", with_length(50'000'000, good), "its header alone needs 50000008"},
      {"no header", with_length(0, "data"), "does not begin with '{'"},
      {"blank before", file_of(" " + good, 8), "does not begin with '{'"},
      {"a list", file_of("[1]", 0), "does not begin with '{'"},
      {"broken JSON", file_of("{\"a\":", 0), "not JSON"},
      {"text after the object", file_of(good + "{}", 8), "not JSON"},
      {"not UTF-8", file_of("{\"\xff\xfe\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0),
       "not JSON"},
      {"NUL inside", file_of(std::string("{\"a\0\":1}", 8), 0), "not JSON"},
      {"nested without end", file_of(deep, 0), "has not the form"},
      {"an entry that is a number", file_of(R"({"a":1})", 0), "has not the form"},
      {"an entry that is a list", file_of(R"({"a":[1]})", 0), "has not the form"},
      {"an object as shape", file_of(tensor("F32", "{}", "[0,4]"), 4), "has not the form"},
      {"text as shape", file_of(tensor("F32", "\"2\"", "[0,8]"), 8), "shape of tensor 'a' is not a list"},
      {"no dtype", file_of(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8), "has no 'dtype'"},
      {"no shape", file_of(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8), "has no 'shape'"},
      {"no offsets", file_of(R"({"a":{"dtype":"F32","shape":[2]}})", 8), "has no 'data_offsets'"},
      {"unknown dtype", file_of(tensor("F33", "[2]", "[0,8]"), 8), "has dtype \"F33\"; known are BOOL"},
      {"numeric dtype", file_of(R"({"a":{"dtype":3,"shape":[2],"data_offsets":[0,8]}})", 8), "has dtype 3"},
      {"negative shape", file_of(tensor("F32", "[-2]", "[0,8]"), 8), "holds -2"},
      {"negative pair", file_of(tensor("F32", "[-2,-1]", "[0,8]"), 8), "holds -2"},
      {"fractional shape", file_of(tensor("F32", "[2.0]", "[0,8]"), 8), "holds 2.0"},
      {"shape of 2^63", file_of(tensor("U8", "[9223372036854775808]", "[0,8]"), 8),
       "holds 9223372036854775808"},
      {"shape over 2^64", file_of(tensor("U8", "[99999999999999999999999]", "[0,8]"), 8),
       "a number from 0 to 2^63 - 1 was expected"},
      {"overflowing shape", file_of(tensor("F32", "[4294967296,4294967296]", "[0,8]"), 8), "overflows"},
      {"overflow to zero", file_of(tensor("F32", "[4611686018427387904]", "[0,0]"), 0), "overflows"},
      {"shape of 1001 axes", file_of(tensor("F32", "[" + long_shape + "]", "[0,4]"), 4),
       "more than 16 numbers"},
      {"offsets beyond the end", file_of(tensor("F32", "[200]", "[0,800]"), 8), "it is truncated"},
      {"offsets of exabytes", file_of(tensor("U8", "[18]", "[18446744073709551597,18446744073709551615]"), 8),
       "hole"},
      {"offsets reversed", file_of(tensor("F32", "[2]", "[8,0]"), 8), "begin <= end was expected"},
      {"negative offset", file_of(tensor("F32", "[2]", "[-8,0]"), 8), "begin <= end was expected"},
      {"one offset", file_of(tensor("F32", "[2]", "[8]"), 8), "begin <= end was expected"},
      {"offsets against shape", file_of(tensor("F32", "[3]", "[0,8]"), 8),
       "has 8 bytes; its dtype and shape need 12"},
      {"offsets against dtype", file_of(tensor("F64", "[2]", "[0,8]"), 8),
       "has 8 bytes; its dtype and shape need 16"},
      {"overlapping", file_of(two("[0,8]", "[4,12]"), 12), "overlaps another tensor"},
      {"the same bytes twice", file_of(two("[0,8]", "[0,8]"), 8), "overlaps another tensor"},
      {"a hole", file_of(two("[0,8]", "[12,20]"), 20), "there is a hole"},
      {"a hole first", file_of(tensor("F32", "[2]", "[4,12]"), 12), "there is a hole"},
      {"duplicate tensor", file_of("{" + good.substr(1, good.size() - 2) + "," + good.substr(1), 8),
       "names 'a' twice"},
      {"duplicate key", file_of(R"({"a":{"dtype":"F32","dtype":"U8","shape":[2],"data_offsets":[0,8]}})", 8),
       "names 'dtype' twice"},
      {"metadata that is no object", file_of(R"({"__metadata__":"pt"})", 0), "has not the form"},
      {"metadata with a number", file_of(R"({"__metadata__":{"format":1}})", 0), "'format' is not text"},
      {"a name of lines", file_of(R"({"a\nfake line\u001b[2J":{"dtype":"F32","shape":[2]}})", 8),
       "tensor 'a?fake line?[2J' has no 'data_offsets'"},
      {"a name without end", file_of("{\"" + std::string(100'000, 'x') + R"(":{"shape":[2]}})", 8),
       "x...' has no 'data_offsets'"},
      {"a dtype without end", file_of(tensor(std::string(100'000, 'x'), "[2]", "[0,8]"), 8),
       "x...; known are"},
      {"truncated data", file_of(good, 7), "it is truncated: it has 69 bytes, its header says 70"},
      {"bytes after the data", file_of(good, 9), "it is too long: it has 71 bytes, its header says 70"},
  };
}

}  // namespace

BOOST_DATA_TEST_CASE_F(TemporaryFolder, hostile_file_is_a_data_error,
                       boost::unit_test::data::make(hostile_files()), hostile) {
  io::write_atomically(folder / "bad.safetensors", hostile.file);
  const std::string message = refusal(folder / "bad.safetensors");
  BOOST_TEST(has(message, "bad.safetensors"), message);
  BOOST_TEST(has(message, hostile.reason), message);
  BOOST_TEST(message.size() < 600U);
}

BOOST_FIXTURE_TEST_CASE(every_truncation_is_a_data_error, TemporaryFolder) {
  const std::vector<float> values{1, 2, 3, 4};
  const std::vector<NamedTensor> tensors{{"a", {Dtype::float32, {2, 2}, std::as_bytes(std::span(values))}}};
  io::write_safetensors(folder / "whole", tensors);
  std::ifstream stream(folder / "whole", std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  for (std::size_t size = 1; size < whole.size(); ++size) {
    std::ofstream(folder / "part", std::ios::binary) << whole.substr(0, size);
    const std::string message = refusal(folder / "part");
    BOOST_TEST(has(message, "truncated: it has " + std::to_string(size) + " bytes"), message);
  }
}

BOOST_FIXTURE_TEST_CASE(written_tensors_come_back, TemporaryFolder) {
  std::vector<float> floats(6);
  std::iota(floats.begin(), floats.end(), 1.5F);
  const std::vector<std::uint16_t> halves{0x3f80, 0x4000, 0x4040};
  const std::vector<std::int64_t> integers{-1, 1LL << 40};
  const std::array<std::uint8_t, 1> byte{7};
  const std::vector<NamedTensor> tensors{
      {"byte", {Dtype::uint8, {1}, std::as_bytes(std::span(byte))}},
      {"half", {Dtype::bfloat16, {3, 1}, std::as_bytes(std::span(halves))}},
      {"float", {Dtype::float32, {2, 3}, std::as_bytes(std::span(floats))}},
      {"integer", {Dtype::int64, {2}, std::as_bytes(std::span(integers))}},
      {"scalar", {Dtype::float32, {}, std::as_bytes(std::span(floats).first(1))}},
      {"nothing", {Dtype::float32, {0, 5}, {}}}};
  io::write_safetensors(folder / "a.safetensors", tensors);
  const SafetensorsFile file(folder / "a.safetensors");
  BOOST_TEST(file.tensors().size() == tensors.size());
  BOOST_TEST(file.metadata().at("format") == "pt");
  for (const NamedTensor& expected : tensors) {
    const io::TensorView& found = file.at(expected.name, expected.tensor.shape);
    BOOST_TEST((found.dtype == expected.tensor.dtype));
    BOOST_REQUIRE(found.bytes.size() == expected.tensor.bytes.size());
    BOOST_TEST(found.is_aligned());
    BOOST_TEST(
        (found.bytes.empty() || std::memcmp(found.data(), expected.tensor.data(), found.bytes.size()) == 0));
  }
  BOOST_TEST(file.at("float").elements() == 6);
  BOOST_TEST(file.at("nothing").elements() == 0);
  BOOST_TEST(file.at("scalar").elements() == 1);
  // Widest elements come first, so the first of the file's data is the int64.
  BOOST_TEST((file.at("integer").data() - file.mapping()->data()) % 64 == 0);
}

BOOST_FIXTURE_TEST_CASE(mapping_outlives_the_file_object, TemporaryFolder) {
  const std::vector<float> values{1, 2, 3};
  const std::vector<NamedTensor> tensors{{"a", {Dtype::float32, {3}, std::as_bytes(std::span(values))}}};
  io::write_safetensors(folder / "a", tensors);
  std::shared_ptr<const io::MappedFile> mapping;
  io::TensorView view;
  {
    const SafetensorsFile file(folder / "a");
    mapping = file.mapping();
    view = file.at("a");
  }
  BOOST_TEST(std::memcmp(view.data(), values.data(), 12) == 0);
}

BOOST_FIXTURE_TEST_CASE(absent_and_misshapen_tensors_are_named, TemporaryFolder) {
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const std::vector<NamedTensor> tensors{{"wte", {Dtype::float32, {2, 3}, std::as_bytes(std::span(values))}}};
  io::write_safetensors(folder / "a", tensors);
  const SafetensorsFile file(folder / "a");
  BOOST_TEST(file.find("wpe") == nullptr);
  BOOST_CHECK_EXCEPTION((void)file.at("wpe"), DataError, [](const DataError& error) {
    return has(error.what(), "/a' has no tensor 'wpe'; it has 1: wte");
  });
  BOOST_CHECK_EXCEPTION((void)file.at("wte", std::vector<std::int64_t>{3, 2}), DataError,
                        [](const DataError& error) {
                          return has(error.what(), "tensor 'wte' has shape [2, 3]; [3, 2] was expected");
                        });
  BOOST_TEST(has(refusal(folder / "absent"), "No such file"));
}

BOOST_FIXTURE_TEST_CASE(contradicting_tensors_are_not_written, TemporaryFolder) {
  const std::vector<float> values{1, 2};
  const NamedTensor good{"a", {Dtype::float32, {2}, std::as_bytes(std::span(values))}};
  const NamedTensor bad{"b", {Dtype::float32, {3}, std::as_bytes(std::span(values))}};
  BOOST_CHECK_THROW(io::write_safetensors(folder / "x", std::vector{good, bad}), std::invalid_argument);
  BOOST_CHECK_THROW(io::write_safetensors(folder / "x", std::vector{good, good}), std::invalid_argument);
  BOOST_TEST(std::filesystem::is_empty(folder));
}
