#include "comigs/data/probes.hpp"

#include <algorithm>

#include "comigs/base/error.hpp"
#include "comigs/data/vocabulary.hpp"
#include "json_file.hpp"

namespace comigs::data {

namespace {

constexpr std::size_t most_file_bytes = std::size_t{1} << 26;
constexpr std::size_t most_probes = 1024, most_tokens = 65536;  // of a probe

// A group of results.h5 that other tools open too: HDF5 parts names by '/', netCDF allows no outer blanks.
bool is_group_name(const std::string& name) {
  return is_short_and_printable(name) && name.find('/') == std::string::npos && name.front() != ' ' &&
         name.back() != ' ' && name != "." && name != "..";
}

class ProbesReader : public JsonFile {
 public:
  explicit ProbesReader(const std::filesystem::path& file) : JsonFile(file, most_file_bytes) {
    if (text(root(), "format", "") != "comigs-probes" || count(root(), "format_version", "") != 1)
      fail("format", "'comigs-probes' of version 1");
    vocabulary_ = count(root(), "vocabulary", "");
  }

  [[nodiscard]] std::int64_t vocabulary() const { return vocabulary_; }

  [[nodiscard]] Probe probe(const Json& entry, const std::string& where) const {
    Probe probe{.name = text(entry, "name", where), .owner = {}, .ids = {}, .texts = {}};
    if (!is_group_name(probe.name))
      fail(where + "name",
           fmt::format("printable, of at most {} bytes, without '/' and outer blanks", longest_name_bytes));
    const Json& ids = list(entry, "ids", where);
    for (const Json& id : ids) {
      if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= static_cast<std::uint64_t>(vocabulary_))
        fail(fmt::format("{}ids[{}]", where, probe.ids.size()),
             fmt::format("a token of the vocabulary of {}", vocabulary_));
      probe.ids.push_back(id.get<std::int64_t>());
    }
    const Json& texts = list(entry, "text", where);
    if (texts.size() != ids.size()) fail(where + "text", fmt::format("a list of {} texts", ids.size()));
    for (const Json& token : texts) {
      if (!token.is_string()) fail(fmt::format("{}text[{}]", where, probe.texts.size()), "a text");
      probe.texts.push_back(valid_text(token.get_ref<const std::string&>()));
    }
    return probe;
  }

 private:
  [[nodiscard]] const Json& list(const Json& entry, const std::string& name, const std::string& where) const {
    const Json& value = member(entry, name, where);
    if (!value.is_array() || value.empty() || value.size() > most_tokens)
      fail(where + name, fmt::format("a list of 1 to {} entries", most_tokens));
    return value;
  }

  std::int64_t vocabulary_ = 0;
};

}  // namespace

ProbeFile read_probes(const std::filesystem::path& file) {
  const ProbesReader reader(file);
  const Json& entries = reader.member(reader.root(), "probes", "");
  if (!entries.is_array() || entries.empty() || entries.size() > most_probes)
    reader.fail("probes", fmt::format("a list of 1 to {} probes", most_probes));
  ProbeFile found{.vocabulary = reader.vocabulary(), .probes = {}};
  for (const Json& entry : entries) {
    const std::string where = fmt::format("probes[{}].", found.probes.size());
    Probe probe = reader.probe(entry, where);
    if (std::any_of(found.probes.begin(), found.probes.end(),
                    [&](const Probe& other) { return other.name == probe.name; }))
      reader.fail(where + "name", "different from the other probes' names");
    found.probes.push_back(std::move(probe));
  }
  return found;
}

std::vector<Probe> test_probes(const Manifest& manifest, std::int64_t tokens) {
  check_tokeniser(manifest);
  const Vocabulary vocabulary(manifest.tokeniser);
  std::vector<Probe> probes;
  for (const UserShards& user : manifest.users) {
    const TokenShard split = TokenShard(user.test, manifest.vocabulary).leading(tokens);
    Probe probe{.name = fmt::format("user_{}", probes.size()),
                .owner = user.name,
                .ids = std::vector<std::int64_t>(static_cast<std::size_t>(split.size())),
                .texts = {}};
    split.read(0, probe.ids);
    for (const Example& example : split.examples()) {
      if (example.begin > 0) probe.begins.push_back(example.begin);
      probe.instruction.push_back(example.instruction);
    }
    for (const std::int64_t id : probe.ids) probe.texts.push_back(vocabulary.text(id));
    probes.push_back(std::move(probe));
  }
  return probes;
}

}  // namespace comigs::data
