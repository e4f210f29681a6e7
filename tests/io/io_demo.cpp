// Room io as a command, so that Python can check it: io_demo {sha256 FILE | list FILE | copy FROM TO}
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/safetensors.hpp"

namespace {

using comigs::io::SafetensorsFile;

void list(const std::string& path) {
  const SafetensorsFile file(path);
  for (const auto& [name, tensor] : file.tensors()) {
    std::string shape;
    for (const std::int64_t extent : tensor.shape) {
      shape += (shape.empty() ? "" : ",") + std::to_string(extent);
    }
    std::printf("%s %s [%s] %s\n", name.c_str(), std::string(name_of(tensor.dtype)).c_str(), shape.c_str(),
                comigs::sha256(tensor.bytes).c_str());
  }
}

void copy(const std::string& from, const std::string& to) {
  const SafetensorsFile file(from);
  std::vector<comigs::io::NamedTensor> tensors;
  for (const auto& [name, tensor] : file.tensors()) {
    tensors.push_back({name, tensor});
  }
  write_safetensors(to, tensors, file.metadata());
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 2 && arguments[0] == "sha256") {
      std::puts(comigs::sha256_of_file(arguments[1]).c_str());
    } else if (arguments.size() == 2 && arguments[0] == "list") {
      list(arguments[1]);
    } else if (arguments.size() == 3 && arguments[0] == "copy") {
      copy(arguments[1], arguments[2]);
    } else {
      std::fputs("usage: io_demo {sha256 FILE | list FILE | copy FROM TO}\n", stderr);
      return 2;
    }
    return 0;
  } catch (const comigs::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
