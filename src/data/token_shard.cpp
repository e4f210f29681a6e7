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

void check_digest(const std::filesystem::path& file, const io::MappedFile& mapped,
                  const std::string& digest) {
  if (!digest.empty() && sha256(mapped.bytes()) != digest)
    throw DataError(fmt::format(
        "{}: its SHA-256 is not the one in the manifest: the file was changed after the data set was made",
        file.string()));
}

std::span<const Example> view_of_index(const ExamplesDescription& description, const io::MappedFile& index) {
  static_assert(sizeof(Example) == 32);
  if (index.size_bytes() % sizeof(Example) != 0 ||
      index.size_bytes() / sizeof(Example) != static_cast<std::uint64_t>(description.count))
    throw DataError(fmt::format("{}: {} bytes found, but the manifest promises {} examples of {} bytes",
                                description.file.string(), index.size_bytes(), description.count,
                                sizeof(Example)));
  return {reinterpret_cast<const Example*>(index.data()), static_cast<std::size_t>(description.count)};
}

// They follow each other and make up all `tokens`.
void check_examples(const ExamplesDescription& description, std::span<const Example> examples,
                    std::int64_t tokens) {
  std::int64_t end = 0, longest = 0;
  for (std::size_t i = 0; i < examples.size(); ++i) {
    const Example& example = examples[i];
    const std::int64_t left = tokens - end;
    if (example.begin != end || example.instruction < 1 || example.instruction > left ||
        example.response < 1 || example.response > left - example.instruction)
      throw DataError(fmt::format(
          "{}: example {} begins at token {} and has {} tokens of instruction and {} of response; expected "
          "to "
          "begin at {}, at least 1 of each, {} at most",
          description.file.string(), i, example.begin, example.instruction, example.response, end, left));
    if (example.category < 0 || example.category >= description.categories)
      throw DataError(fmt::format("{}: example {} is of category {}, expected 0 to {}",
                                  description.file.string(), i, example.category,
                                  description.categories - 1));
    end += example.tokens();
    longest = std::max(longest, example.tokens());
  }
  if (end != tokens || longest != description.longest)
    throw DataError(
        fmt::format("{}: {} tokens in its examples, {} in the longest, but the manifest promises {} and {}",
                    description.file.string(), end, longest, tokens, description.longest));
}

}  // namespace

std::vector<Example> read_examples(const ShardDescription& split) {
  const io::MappedFile index(split.examples->file);
  const std::span<const Example> examples = view_of_index(*split.examples, index);
  check_examples(*split.examples, examples, split.tokens);
  return {examples.begin(), examples.end()};
}

std::size_t leading_examples(std::span<const Example> examples, std::int64_t tokens) {
  const auto fits = [&](const Example& example) { return example.begin + example.tokens() <= tokens; };
  const auto end = std::partition_point(examples.begin(), examples.end(), fits);
  return std::max<std::size_t>(static_cast<std::size_t>(end - examples.begin()), 1);
}

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
  check_digest(description.file, *file_, description.sha256);
  digests_ = description.sha256;
  if (!description.examples) return;
  index_ = std::make_shared<io::MappedFile>(description.examples->file);
  examples_ = view_of_index(*description.examples, *index_);
  check_examples(*description.examples, examples_, size_);
  check_digest(description.examples->file, *index_, description.examples->sha256);
  const std::string& of_index = description.examples->sha256;
  digests_ = digests_.empty() || of_index.empty() ? std::string() : digests_ + " " + of_index;
}

std::string TokenShard::identity() const {
  return digests_.empty() ? std::string() : fmt::format("{} {}", digests_, size_);
}

TokenShard TokenShard::leading(std::int64_t tokens) const {
  TokenShard part = *this;
  part.size_ = std::min(size_, tokens);
  if (!has_examples()) return part;
  part.examples_ = examples_.first(leading_examples(examples_, tokens));
  part.size_ = part.examples_.back().begin + part.examples_.back().tokens();
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
