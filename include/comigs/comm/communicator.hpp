// Groups of ranks and the collectives the rest of comigs needs on them. Every collective's name starts with
// `all_`. None waits for ever: who does not come within the patience is named.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comigs/base/error.hpp"

namespace comigs::comm {

/// Throws CommError with MPI's own words if `code` is not MPI_SUCCESS.
void check_mpi(int code, const char* call);

/// Owns an MPI communicator (the world's handle is borrowed). Move-only. All members that start with `all_`
/// are collective over it and throw CommError: with MPI's own words, or with the names of those for whom
/// others have waited for longer than they were told to.
class Communicator {
 public:
  [[nodiscard]] static Communicator world();
  Communicator(Communicator&& other) noexcept;
  Communicator& operator=(Communicator&& other) noexcept;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  ~Communicator();

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int size() const noexcept { return size_; }
  [[nodiscard]] bool is_first() const noexcept { return rank_ == 0; }
  [[nodiscard]] MPI_Comm handle() const noexcept { return handle_; }

  /// The ranks that pass `member == true`, in their order here; nothing for the others. Groups have the
  /// names, patience and look of where they come from.
  [[nodiscard]] std::optional<Communicator> all_split(bool member) const;
  /// The ranks that share this rank's memory (its node).
  [[nodiscard]] Communicator all_split_by_node() const;
  /// The ranks that pass the same text, in their order here.
  [[nodiscard]] Communicator all_split_by(const std::string& text) const;

  /// Every rank together, in their order here.
  [[nodiscard]] Communicator all_duplicate() const;

  /// What messages call the ranks of the world; until then "rank 2".
  void name_ranks(std::vector<std::string> names) { names_ = std::move(names); }
  [[nodiscard]] std::string name_of(int rank) const;
  /// How long any call waits for other ranks; infinite until set. One of this machine that a signal has
  /// stopped alone (SIGSTOP) is waited for some seconds only.
  void wait_at_most(double seconds) { patience_seconds_ = seconds; }

  /// What a rank that waits does now and then; must not communicate here.
  void while_waiting(std::function<void()> look) { look_ = std::move(look); }

  /// Returns when all ranks have come. Throws CommError that names the ranks that have not come within
  /// `wait_at_most`, or `seconds`.
  void all_meet() const { all_meet(patience_seconds_); }
  void all_meet(double seconds) const;

  [[nodiscard]] double all_max(double value) const;
  [[nodiscard]] std::int64_t all_sum(std::int64_t value) const;
  /// Rank r's block at index r, on every rank; all blocks have the same length.
  [[nodiscard]] std::vector<double> all_gather(std::span<const double> block) const;
  [[nodiscard]] std::vector<std::int64_t> all_gather(std::span<const std::int64_t> block) const;
  /// Rank r's text at index r, on every rank.
  [[nodiscard]] std::vector<std::string> all_gather(const std::string& text) const;
  /// Rank r's numbers at index r, on rank 0; empty elsewhere. Lengths may differ.
  [[nodiscard]] std::vector<std::vector<float>> all_gather_to_first(std::span<const float> block) const;
  /// Rank `source`'s numbers on every rank, in place; all blocks have the same length.
  void all_broadcast(std::span<float> block, int source) const;
  /// Rank 0's text on every rank.
  [[nodiscard]] std::string all_broadcast(const std::string& text) const;

  /// Starts one of MPI's nonblocking calls on this communicator and returns when it is done. A rank that
  /// waits soon sleeps: its cores are free for those that work.
  template <class Start>
  void all_finish(const char* call, const Start& start) const {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(start(&request), call);
    finish(request, call);
  }
  /// For a call that has no such form: all come to it together, and where it then lasts longer than ranks are
  /// to wait, this process is ended.
  void all_guarded(const char* call, const std::function<int()>& blocking) const;

 private:
  Communicator(MPI_Comm handle, bool owned);
  [[nodiscard]] std::optional<Communicator> all_split_into(int color) const;
  [[nodiscard]] Communicator group(MPI_Comm handle) const;
  template <class Number>
  [[nodiscard]] std::vector<Number> all_gather_numbers(std::span<const Number> block,
                                                       MPI_Datatype type) const;

  /// False: some are still open after so many seconds of waiting.
  [[nodiscard]] bool wait(std::span<MPI_Request> requests, double seconds) const;
  void finish(MPI_Request& request, const char* call) const;
  /// Ranks here that do not answer a call, so do not wait as this one does.
  [[nodiscard]] std::vector<int> silent_ranks() const;
  [[nodiscard]] CommError late(const std::vector<int>& ranks, double seconds, const char* call) const;
  /// From a rank of the world to its name, also after this object's life.
  [[nodiscard]] std::function<std::string(int)> namer() const;

  MPI_Comm handle_ = MPI_COMM_NULL;
  bool owned_ = false;
  int rank_ = 0;
  int size_ = 1;
  std::vector<int> members_;  ///< their ranks in the world
  std::vector<std::string> names_;
  std::function<void()> look_;
  double patience_seconds_ = std::numeric_limits<double>::infinity();
};

}  // namespace comigs::comm
