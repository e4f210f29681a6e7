// Errors that every rank learns of: the end of a phase is the place where ranks agree that all of them came
// through it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "comigs/base/error.hpp"
#include "comigs/comm/communicator.hpp"

namespace comigs::comm {

/// Why this rank did not come through a phase.
struct Failure {
  ExitCode exit_code = ExitCode::failed;
  std::string message;
};

/// Runs `work` and turns what it throws into a Failure.
[[nodiscard]] std::optional<Failure> capture(const std::function<void()>& work);

/// Collective. If any rank brings a failure, rank 0 prints each distinct message once (with the ranks it came
/// from unless it came from all) and every rank throws PeerError with the gravest exit code: bad input before
/// failed before interrupted. A rank that brings a failure does not wait long for the others: where they do
/// not come, it throws what it brought, as an Error of its own.
void all_agree_on(const Communicator& communicator, const std::optional<Failure>& failure);

/// Collective. Runs `work`, which must not communicate, on every rank; returns its result if no rank failed,
/// else throws PeerError on all of them. `throw` inside `work` is thereby safe.
template <class Work>
auto all_agree(const Communicator& communicator, Work&& work) {
  using Result = std::invoke_result_t<Work>;
  if constexpr (std::is_void_v<Result>) {
    all_agree_on(communicator, capture(std::forward<Work>(work)));
  } else {
    std::optional<Result> result;
    all_agree_on(communicator, capture([&] { result.emplace(work()); }));
    return std::move(*result);
  }
}

}  // namespace comigs::comm
