// The frozen base model of a run, in the precision it is used in.
#pragma once

#include <c10/core/Device.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "comigs/comm/communicator.hpp"
#include "comigs/config/config.hpp"
#include "comigs/model/base_model.hpp"

namespace comigs::run {

/// Collective. What is computed beside bf16 weights, one decision for all ranks: as configured; automatic:
/// bf16 where each of them `is_fast` in it (model::is_fast_in_bf16), else float32. Beside float32 weights it
/// stays as it is.
[[nodiscard]] config::Activations all_settle_activations(const comm::Communicator& world,
                                                         const config::Run& run, bool is_fast);

/// The weights in a base model's folder as they were found.
struct WeightsFound {
  std::string digest, state;  ///< see model::weights_digest, model::weights_state
};

/// Collective. What each rank finds; ranks of a node that see one file leave reading it to one of them.
/// Throws PeerError on every rank if any cannot read it.
[[nodiscard]] WeightsFound all_find_weights(const comm::Communicator& world,
                                            const std::filesystem::path& folder);

/// Owns the base model. Ranks of a node share the pages of its mapped file; a base that cannot be used as it
/// lies (another precision, or tensors off their alignment) is written once, for all ranks, into a folder
/// beside the results, which rank 0 removes at the end of its life: mapped files keep their names until then,
/// as network file systems want it. Rank 0 must hold the folder of the results, so that whatever base lies
/// there is that of a run that was killed. Ranks that compute on one GPU share one upload where the system
/// lets them (CUDA IPC): it lives in the process of one of them, which must not end before the others are
/// done.
class FrozenBase {
 public:
  /// Collective. Throws PeerError on every rank if any rank cannot read or write its files, or if its weights
  /// are not those that it has `found`.
  FrozenBase(const comm::Communicator& world, const config::Run& run, const std::filesystem::path& folder,
             const WeightsFound& found, const model::Architecture& architecture, const c10::Device& device);
  [[nodiscard]] const model::BaseModel& model() const { return *model_; }

 private:
  /// Makes a folder for a base in `output`, and removes it at the end of its life, also where the constructor
  /// around it fails.
  class TemporaryFolder {
   public:
    TemporaryFolder(const std::filesystem::path& output, const std::string& name);
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder();

   private:
    std::filesystem::path path_;
  };
  std::optional<TemporaryFolder> converted_;
  std::unique_ptr<model::BaseModel> model_;
};

}  // namespace comigs::run
