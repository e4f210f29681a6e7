#include "comigs/data/token_shard.hpp"

#include <algorithm>
#include <bit>

#include "comigs/base/error.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/mapped_file.hpp"

static_assert(std::endian::native == std::endian::little,
              "token files are little-endian and read as they lie");

namespace comigs::data {

namespace {

template <class Token>
void check_vocabulary(const std::filesystem::path& file, std::span<const Token> tokens,
                      std::int64_t vocabulary) {
  const auto largest = std::max_element(tokens.begin(), tokens.end());
  if (largest != tokens.end() && static_cast<std::int64_t>(*largest) >= vocabulary)
    throw DataError(fmt::format("{}: token {} at position {} is outside the vocabulary of {} entries",
                                file.string(), *largest, largest - tokens.begin(), vocabulary));
}

template <class Token>
std::span<const Token> view(const io::MappedFile& file, std::int64_t size) {
  return {reinterpret_cast<const Token*>(file.data()), static_cast<std::size_t>(size)};
}

}  // namespace

TokenShard::TokenShard(const ShardDescription& description, std::int64_t vocabulary)
    : file_(std::make_shared<io::MappedFile>(description.file)),
      type_(description.type),
      size_(description.tokens) {
  const std::uint64_t width = type_ == TokenType::uint16 ? 2 : 4;
  if (file_->size_bytes() % width != 0 || file_->size_bytes() / width != static_cast<std::uint64_t>(size_))
    throw DataError(fmt::format("{}: {} bytes found, but the manifest promises {} tokens of {} bytes",
                                description.file.string(), file_->size_bytes(), size_, width));
  if (type_ == TokenType::uint16) {
    check_vocabulary(description.file, view<std::uint16_t>(*file_, size_), vocabulary);
  } else {
    check_vocabulary(description.file, view<std::uint32_t>(*file_, size_), vocabulary);
  }
  if (!description.sha256.empty() && sha256(file_->bytes()) != description.sha256)
    throw DataError(fmt::format(
        "{}: its SHA-256 is not the one in the manifest: the file was changed after the data set was made",
        description.file.string()));
}

TokenShard TokenShard::leading(std::int64_t tokens) const {
  TokenShard part = *this;
  part.size_ = std::min(size_, tokens);
  return part;
}

void TokenShard::read(std::int64_t begin, std::span<std::int64_t> out) const {
  const auto copy = [&](auto tokens) {
    const auto part = tokens.subspan(static_cast<std::size_t>(begin), out.size());
    std::copy(part.begin(), part.end(), out.begin());
  };
  if (type_ == TokenType::uint16) {
    copy(view<std::uint16_t>(*file_, size_));
  } else {
    copy(view<std::uint32_t>(*file_, size_));
  }
}

void require_tokens(const ShardDescription& shard, std::int64_t least, const std::string& reason) {
  if (shard.tokens < least)
    throw DataError(fmt::format("{}: {} tokens, expected at least {} ({})", shard.file.string(), shard.tokens,
                                least, reason));
}

}  // namespace comigs::data
