#include "comigs/base/sha256.hpp"

#include <openssl/evp.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/base/system_reason.hpp"

namespace comigs {
namespace {

class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) {
      throw IoError("OpenSSL cannot compute SHA-256 digests here");
    }
  }
  void add(const void* data, std::size_t size_bytes) {
    if (EVP_DigestUpdate(context_.get(), data, size_bytes) != 1) {
      throw IoError("OpenSSL failed to compute a SHA-256 digest");
    }
  }
  std::string finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size_bytes = 0;
    if (EVP_DigestFinal_ex(context_.get(), digest.data(), &size_bytes) != 1) {
      throw IoError("OpenSSL failed to compute a SHA-256 digest");
    }
    std::string text;
    for (unsigned int i = 0; i < size_bytes; ++i) {
      text += fmt::format("{:02x}", digest[i]);
    }
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string sha256(std::span<const std::byte> bytes) {
  Digest digest;
  digest.add(bytes.data(), bytes.size());
  return digest.finish();
}

std::string sha256(std::string_view text) { return sha256(std::as_bytes(std::span(text))); }

std::string sha256_of_file(const std::filesystem::path& path) {
  // A named pipe would be waited for, a device read for ever.
  std::error_code ignored;
  const std::filesystem::file_status status = std::filesystem::status(path, ignored);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    throw DataError(fmt::format(
        "cannot read '{}': {}", path.string(),
        std::filesystem::is_directory(status) ? "it is a folder, not a file" : "it is not a regular file"));
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  Digest digest;
  std::vector<char> buffer(std::size_t{1} << 20);
  while (file) {
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    digest.add(buffer.data(), static_cast<std::size_t>(file.gcount()));
  }
  if (!file.eof()) {
    const int reason = errno;
    const std::string message = fmt::format("cannot read '{}': {}", path.string(), std::strerror(reason));
    if (is_about_path(reason)) throw DataError(message);
    throw IoError(message);
  }
  return digest.finish();
}

}  // namespace comigs
