#include "comigs/adapter/peft_adapter.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <vector>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/base/sha256.hpp"
#include "comigs/io/json.hpp"
#include "comigs/io/mapped_file.hpp"
#include "comigs/io/safetensors.hpp"
#include "comigs/model/base_model.hpp"
#include "peft_config.hpp"

namespace comigs::adapter {

namespace {

namespace fs = std::filesystem;

constexpr const char *settings_name = "adapter_config.json", *tensors_name = "adapter_model.safetensors";
constexpr std::size_t most_settings_bytes = std::size_t{1} << 20;
constexpr std::string_view before_module = "base_model.model.", weight_ending = ".weight";

// What lies in the place of an adapter, and what to do.
void check_files(const fs::path& folder) {
  std::error_code failed;
  if (!fs::is_directory(folder, failed))
    throw DataError(fmt::format("{}: no such folder, expected that of a PEFT adapter: {} and {}",
                                folder.string(), settings_name, tensors_name));
  const auto is_absent = [&](const char* name) { return !fs::exists(folder / name, failed) && !failed; };
  if (is_absent(settings_name) && !is_absent("mixture.json"))
    throw DataError(
        fmt::format("{}: an export of several adapters, expected the folder of one of them: attention, "
                    "expert-0, ...",
                    folder.string()));
  for (const char* name : {settings_name, tensors_name}) {
    if (!is_absent(name)) continue;
    throw DataError(fmt::format(
        "{}: there is no {}, expected a PEFT adapter: {} and {}{}", folder.string(), name, settings_name,
        tensors_name,
        is_absent("adapter_model.bin")
            ? ""
            : "; adapter_model.bin becomes one by peft's save_pretrained(FOLDER, safe_serialization=True)"));
  }
}

// A projection of a layer, which may have a LoRA beside it.
struct Place {
  Role role;
  std::int64_t layer, site;
  model::Projection projection;
  model::WeightSpec matrix;
};

std::vector<Place> places_of(const model::Architecture& architecture) {
  std::vector<model::Projection> mlp = architecture.up;
  mlp.push_back(architecture.down);
  std::vector<Place> places;
  const auto add = [&](Role role, const std::vector<model::Projection>& projections) {
    for (std::size_t site = 0; site < projections.size(); ++site) {
      std::int64_t layer = 0;
      for (const model::WeightSpec& matrix : model::weights_of(architecture, projections[site]))
        places.push_back({role, layer++, static_cast<std::int64_t>(site), projections[site], matrix});
    }
  };
  add(Role::attention, architecture.attention);
  add(Role::expert, mlp);
  return places;
}

at::ScalarType scalar_type(io::Dtype dtype, const std::string& place) {
  if (dtype == io::Dtype::float32) return at::kFloat;
  if (dtype == io::Dtype::bfloat16) return at::kBFloat16;
  if (dtype == io::Dtype::float16) return at::kHalf;
  throw DataError(fmt::format("{}: a LoRA of type {}, expected F32, BF16 or F16", place, io::name_of(dtype)));
}

// What an unknown tensor's name tells of the adapter.
struct Sign {
  std::string_view part;
  const char* meaning;
};

constexpr Sign signs[] = {
    {".lora_magnitude_vector", "DoRA, expected plain LoRA"},
    {".lora_embedding_", "LoRA on an embedding, expected it beside attention and MLP alone"},
    {"lm_head.", "of the head, expected LoRA beside attention and MLP alone"},
    {".bias", "biases, expected none ('bias' in adapter_config.json)"},
    {"", "of modules that comigs has no LoRA beside, or of an adapter of another base"}};

}  // namespace

class PeftAdapter::Reader {
 public:
  Reader(const io::SafetensorsFile& file, const PeftConfig& config) : file_(file), config_(config) {}

  // Nothing where neither factor is there. The network's own name ("transformer.") may be missing.
  [[nodiscard]] std::optional<StoredLora> read(const Place& place) {
    for (const std::string& prefix : {place.matrix.prefix, std::string()}) {
      std::string module = prefix + place.matrix.name;
      module.resize(module.size() - weight_ending.size());
      const std::string stem = fmt::format("{}{}", before_module, module), A = stem + ".lora_A.weight",
                        B = stem + ".lora_B.weight";
      if (file_.find(A) == nullptr && file_.find(B) == nullptr) continue;
      const std::int64_t rank = config_.rank(module);
      return StoredLora{.A = factor(A, {rank, place.projection.in}),
                        .B = factor(B, {place.projection.out, rank}),
                        .scale = config_.scale(module),
                        .place = place_of(module)};
    }
    return std::nullopt;
  }

  // Called last: nothing of the adapter is left out of what is computed.
  void refuse_others() const {
    constexpr std::size_t names_shown = 3;
    std::vector<std::string> others;
    for (const auto& [name, view] : file_.tensors())
      if (!read_.contains(name)) others.push_back(name);
    if (others.empty()) return;
    const std::size_t count = others.size();
    const Sign* const sign = std::ranges::find_if(
        signs, [&](const Sign& one) { return others.front().find(one.part) != std::string::npos; });
    others.resize(std::min(count, names_shown));
    for (std::string& name : others) name = printable(name);
    throw DataError(fmt::format("{}: {} '{}'{}: {}", file_.mapping()->path().string(),
                                count == 1 ? "a tensor" : fmt::format("{} tensors", count),
                                fmt::join(others, "', '"), count > names_shown ? ", ..." : "",
                                sign->meaning));
  }

 private:
  [[nodiscard]] std::string place_of(const std::string& name) const {
    return fmt::format("{}: '{}'", file_.mapping()->path().string(), name);
  }

  [[nodiscard]] at::Tensor factor(const std::string& name, const std::vector<std::int64_t>& shape) {
    const io::TensorView& view = file_.at(name);
    read_.insert(name);
    if (view.shape != shape)
      throw DataError(fmt::format("{} has shape [{}], expected [{}] from {} and the base", place_of(name),
                                  fmt::join(view.shape, ", "), fmt::join(shape, ", "), settings_name));
    const at::Tensor stored = at::empty(shape, scalar_type(view.dtype, place_of(name)));
    std::memcpy(stored.data_ptr(), view.data(), view.bytes.size());
    at::Tensor numbers = stored.to(at::kFloat);
    const auto [least, most] = numbers.aminmax();  // a NaN is both
    for (const double number : {least.item<double>(), most.item<double>()})
      if (!std::isfinite(number))
        throw DataError(fmt::format("{} has {} in it, expected finite numbers", place_of(name), number));
    return numbers;
  }

  const io::SafetensorsFile& file_;
  const PeftConfig& config_;
  std::set<std::string> read_;
};

PeftAdapter::PeftAdapter(const fs::path& folder, const model::Architecture& architecture) {
  check_files(folder);
  const io::MappedFile settings(folder / settings_name);
  const PeftConfig config(io::parse_json(settings.bytes(), settings.path().string(), most_settings_bytes),
                          settings.path());
  const io::SafetensorsFile file(folder / tensors_name);
  Reader reader(file, config);
  for (const Place& place : places_of(architecture))
    if (std::optional<StoredLora> lora = reader.read(place))
      loras_.emplace(Key(place.role, place.layer, place.site), std::move(*lora));
  reader.refuse_others();
  if (loras_.empty())
    throw DataError(fmt::format("{}: no tensors, expected LoRA beside attention or MLP",
                                file.mapping()->path().string()));
  digest_ = sha256(fmt::format("{}  {}\n{}  {}\n", sha256(settings.bytes()), settings_name,
                               sha256(file.mapping()->bytes()), tensors_name));
}

namespace {

double gamma_of(const UserModel& user_model, const Part& part) {
  return part.role == Role::attention ? user_model.attention_scale() : user_model.scale();
}

}  // namespace

const PeftAdapter::StoredLora* PeftAdapter::beside(const Part& part) const {
  const auto found = loras_.find(Key(part.role, part.layer, part.site));
  return found == loras_.end() ? nullptr : &found->second;
}

void PeftAdapter::check_fits(const model::Architecture& architecture, const UserModel& user_model,
                             const std::string& user, const std::string& section) const {
  const Layout layout(architecture, user_model);
  for (const Part& part : layout.parts()) {
    const StoredLora* const lora = beside(part);
    if (lora == nullptr || part.tag != Part::Tag::A) continue;
    if (const std::int64_t rank = lora->A.size(0); rank > part.rows)
      throw ConfigError(fmt::format(
          "{} has rank {}, but the LoRA of {} ({} {}) has rank {} there; expected {} or more", lora->place,
          rank, user, section,
          part.role == Role::attention && user_model.attention_rank ? "attention_rank" : "lora_rank",
          part.rows, rank));
    const double largest = lora->B.abs().max().item<double>() * lora->scale / gamma_of(user_model, part);
    if (!(largest <= std::numeric_limits<float>::max()))
      throw DataError(fmt::format("{} has numbers in lora_B that are beyond float32 at the scale of {}",
                                  lora->place, user));
  }
}

void PeftAdapter::put_into(Parameters& parameters) const {
  for (std::size_t i = 0; i < parameters.leaves().size(); ++i) {
    const Part& part = parameters.layout().parts()[i];
    const StoredLora* const lora = beside(part);
    if (lora == nullptr) continue;
    const std::int64_t rank = lora->A.size(0);
    const at::Tensor leaf = parameters.leaves()[i].detach();
    if (part.tag == Part::Tag::A)
      leaf.narrow(0, 0, rank).copy_(lora->A);
    else  // rounded once
      leaf.narrow(1, 0, rank)
          .copy_((lora->B.to(at::kDouble) * (lora->scale / gamma_of(parameters.user_model(), part)))
                     .to(at::kFloat));
  }
}

}  // namespace comigs::adapter
