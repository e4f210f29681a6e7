// A whole safetensors file: where its header is accepted, every tensor lies inside the file.
#include "io/safetensors_header.hpp"

#include "input.hpp"

using namespace comigs;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const fuzz::Input file = fuzz::input(data, size);
  fuzz::accept_or_refuse([&] {
    const io::SafetensorsHeader header = io::parse_header(file, "fuzzed");
    std::size_t used = 0;
    for (const auto& [name, tensor] : header.tensors) {
      fuzz::require(
          tensor.bytes.empty() ||
          (tensor.data() >= file.data() && tensor.data() + tensor.bytes.size() <= file.data() + file.size()));
      fuzz::require(tensor.bytes.size() ==
                    static_cast<std::size_t>(tensor.elements()) * io::element_size_bytes(tensor.dtype));
      used += tensor.bytes.size();
    }
    fuzz::require(used <= file.size());
  });
  return 0;
}
