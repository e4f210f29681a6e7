#include "tokens.hpp"

#include <array>
#include <string>

#include "comigs/base/error.hpp"

namespace comigs::results {
namespace {

using io::hdf5::Dataset;
using io::hdf5::Group;
using io::hdf5::Type;

// The dimensions of `score` that the whole file has, by their places in it, and where their labels live.
struct Shared {
  unsigned index;
  const char* name;
  const char* home;
};
constexpr std::array<Shared, 3> shared_dimensions{
    {{0, "user", "/user"}, {2, "layer", "/layer"}, {3, "expert", "/routing/expert"}}};

using Extent = std::vector<std::uint64_t>;

Extent score_extent(const RoundShape& shape, std::size_t tokens) {
  const auto length = [](std::int64_t number) { return static_cast<std::uint64_t>(number); };
  return {length(shape.users), tokens, length(shape.layers), length(shape.experts)};
}

// Whether what is there under the name can be overwritten; its texts' room in the file is then used again,
// which it is not where they are removed.
bool has_room(const Group& tokens, const RoundShape& shape, const TokenRouting& text) {
  const Extent by_token{text.ids.size()};
  const auto is_there = [&](const char* array, const Extent& extent) {
    const std::string path = fmt::format("{}/{}", text.name, array);
    return tokens.contains(path) && tokens.open_dataset(path).extent() == extent;
  };
  return is_there("ids", by_token) && is_there("text", by_token) &&
         is_there("score", score_extent(shape, text.ids.size()));
}

void remove_text(const Group& root, Group& tokens, const std::string& name) {
  const std::string score = name + "/score";
  if (tokens.contains(score)) {
    // A label must not go on pointing at an array that is gone.
    Dataset array = tokens.open_dataset(score);
    for (const Shared& dimension : shared_dimensions) {
      array.detach_scale(root.open_dataset(dimension.home), dimension.index);
    }
  }
  tokens.remove(name);
}

Dataset create(Group& group, const char* name, Type type, const Extent& extent, const char* long_name) {
  Dataset array = group.create_dataset(name, type, extent);
  array.set_attribute("units", "1");
  array.set_attribute("long_name", long_name);
  return array;
}

void lay_out(const Group& root, Group group, const RoundShape& shape, std::size_t count) {
  for (const Shared& dimension : shared_dimensions) {
    group.link(dimension.name, dimension.home);
  }
  const Dataset token = group.create_dimension("token", count);
  create(group, "ids", Type::int64, {count}, "number of the token").attach_scale(token, 0);
  create(group, "text", Type::text, {count}, "text of the token").attach_scale(token, 0);
  Dataset score = create(group, "score", Type::float32, score_extent(shape, count),
                         "gate weight of the expert for the token in the user's model");
  score.attach_scale(token, 1);
  for (const Shared& dimension : shared_dimensions) {
    score.attach_scale(root.open_dataset(dimension.home), dimension.index);
  }
}

}  // namespace

void write_tokens(Group root, const RoundShape& shape, const TokenRouting& text) {
  Group tokens = root.contains("tokens") ? root.open_group("tokens") : root.create_group("tokens");
  if (tokens.contains(text.name) && !has_room(tokens, shape, text)) {
    remove_text(root, tokens, text.name);
  }
  if (!tokens.contains(text.name)) {
    lay_out(root, tokens.create_group(text.name), shape, text.ids.size());
  }
  Group group = tokens.open_group(text.name);
  group.set_attribute("owner", text.owner);
  group.open_dataset("ids").write(text.ids);
  group.open_dataset("text").write(text.texts);
  group.open_dataset("score").write(text.score);
}

std::uint64_t most_growth_bytes(const std::vector<TokenRouting>& texts) {
  constexpr std::uint64_t slack = 1 << 20, group_overhead = 1 << 16, token_overhead = 64;
  std::uint64_t bytes = slack;
  for (const TokenRouting& text : texts) {
    bytes += group_overhead + text.score.size() * sizeof(float);
    for (const std::string& token : text.texts) {
      bytes += token.size() + token_overhead;
    }
  }
  return bytes;
}

}  // namespace comigs::results
