#include "comigs/comm/communicator.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <thread>
#include <utility>

#include "comigs/base/error.hpp"

namespace comigs::comm {

namespace {

// MPI counts are ints; longer blocks travel in pieces of this many elements.
constexpr std::size_t largest_message = std::size_t{1} << 28;

constexpr int come_tag = 1, go_tag = 2;  // of `all_meet`

// Waits for the requests, asleep between looks; which of them are still open when the time is up.
std::vector<std::size_t> open_after(std::vector<MPI_Request>& requests, double seconds,
                                    const std::function<void()>& look) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::microseconds longest_pause(1000);
  const Clock::time_point begun = Clock::now();
  for (std::chrono::microseconds pause(10);; pause = std::min(2 * pause, longest_pause)) {
    int all = 0;
    check_mpi(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &all, MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (all != 0) return {};
    if (look) look();
    if (std::chrono::duration<double>(Clock::now() - begun).count() > seconds) break;
    std::this_thread::sleep_for(pause);
  }
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    int done = 0;
    check_mpi(MPI_Test(&requests[i], &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done == 0) open.push_back(i);
  }
  return open;
}

}  // namespace

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw CommError(
      fmt::format("{} failed: {}", call, std::string_view(text, static_cast<std::size_t>(length))));
}

Communicator::Communicator(MPI_Comm handle, bool owned) : handle_(handle), owned_(owned) {
  check_mpi(MPI_Comm_rank(handle_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(handle_, &size_), "MPI_Comm_size");
}

Communicator Communicator::world() { return {MPI_COMM_WORLD, false}; }

Communicator::Communicator(Communicator&& other) noexcept
    : handle_(std::exchange(other.handle_, MPI_COMM_NULL)),
      owned_(std::exchange(other.owned_, false)),
      rank_(other.rank_),
      size_(other.size_),
      names_(std::move(other.names_)),
      look_(std::move(other.look_)),
      patience_seconds_(other.patience_seconds_) {}

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(owned_, other.owned_);
  std::swap(rank_, other.rank_);
  std::swap(size_, other.size_);
  std::swap(names_, other.names_);
  std::swap(look_, other.look_);
  std::swap(patience_seconds_, other.patience_seconds_);
  return *this;
}

Communicator::~Communicator() {
  // Freeing is collective: while one rank unwinds the others may never come.
  if (owned_ && std::uncaught_exceptions() == 0) MPI_Comm_free(&handle_);
}

std::optional<Communicator> Communicator::all_split_into(int color) const {
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(handle_, color, rank_, &part), "MPI_Comm_split");
  if (color == MPI_UNDEFINED) return std::nullopt;
  Communicator group(part, true);
  group.patience_seconds_ = patience_seconds_;
  if (!names_.empty()) group.names_ = group.all_gather(name_of(rank_));
  return group;
}

std::optional<Communicator> Communicator::all_split(bool member) const {
  return all_split_into(member ? 0 : MPI_UNDEFINED);
}

Communicator Communicator::all_split_by(const std::string& text) const {
  const std::vector<std::string> texts = all_gather(text);
  return std::move(*all_split_into(static_cast<int>(std::ranges::find(texts, text) - texts.begin())));
}

Communicator Communicator::all_split_by_node() const {
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(handle_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &part),
            "MPI_Comm_split_type");
  return {part, true};
}

std::string Communicator::name_of(int rank) const {
  const auto index = static_cast<std::size_t>(rank);
  return index < names_.size() ? names_[index] : fmt::format("rank {}", rank);
}

// Messages to rank 0 and back instead of a barrier: only so can anyone tell who is missing.
void Communicator::all_meet(double seconds) const {
  const auto post = [&](auto&& call, const char* name) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(call(&request), name);
    return request;
  };
  std::vector<MPI_Request> come, go;
  if (!is_first()) {
    constexpr double grace_seconds = 2.0;  // rank 0 names the others first
    come.push_back(
        post([&](MPI_Request* r) { return MPI_Isend(nullptr, 0, MPI_BYTE, 0, come_tag, handle_, r); },
             "MPI_Isend"));
    come.push_back(post(
        [&](MPI_Request* r) { return MPI_Irecv(nullptr, 0, MPI_BYTE, 0, go_tag, handle_, r); }, "MPI_Irecv"));
    if (open_after(come, seconds + grace_seconds, look_).empty()) return;
    throw CommError(fmt::format("{} did not let the others go on within {:g} s", name_of(0), seconds));
  }
  for (int rank = 1; rank < size_; ++rank)
    come.push_back(
        post([&](MPI_Request* r) { return MPI_Irecv(nullptr, 0, MPI_BYTE, rank, come_tag, handle_, r); },
             "MPI_Irecv"));
  std::vector<std::string> missing;
  for (const std::size_t index : open_after(come, seconds, look_))
    missing.push_back(name_of(static_cast<int>(index) + 1));
  if (!missing.empty())
    throw CommError(
        fmt::format("after {:g} s {} had not come to where all ranks meet; a longer --patience waits "
                    "for slower ones",
                    seconds, fmt::join(missing, ", ")));
  for (int rank = 1; rank < size_; ++rank)
    go.push_back(
        post([&](MPI_Request* r) { return MPI_Isend(nullptr, 0, MPI_BYTE, rank, go_tag, handle_, r); },
             "MPI_Isend"));
  (void)open_after(go, seconds, look_);
}

double Communicator::all_max(double value) const {
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_MAX, handle_), "MPI_Allreduce");
  return value;
}

std::int64_t Communicator::all_sum(std::int64_t value) const {
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_SUM, handle_), "MPI_Allreduce");
  return value;
}

std::vector<double> Communicator::all_gather(std::span<const double> block) const {
  std::vector<double> all(block.size() * static_cast<std::size_t>(size_));
  const int count = static_cast<int>(block.size());
  check_mpi(MPI_Allgather(block.data(), count, MPI_DOUBLE, all.data(), count, MPI_DOUBLE, handle_),
            "MPI_Allgather");
  return all;
}

std::vector<std::int64_t> Communicator::all_gather(std::span<const std::int64_t> block) const {
  std::vector<std::int64_t> all(block.size() * static_cast<std::size_t>(size_));
  const int count = static_cast<int>(block.size());
  check_mpi(MPI_Allgather(block.data(), count, MPI_INT64_T, all.data(), count, MPI_INT64_T, handle_),
            "MPI_Allgather");
  return all;
}

std::vector<std::string> Communicator::all_gather(const std::string& text) const {
  int length = static_cast<int>(text.size());
  std::vector<int> lengths(static_cast<std::size_t>(size_)), offsets(lengths.size());
  check_mpi(MPI_Allgather(&length, 1, MPI_INT, lengths.data(), 1, MPI_INT, handle_), "MPI_Allgather");
  std::exclusive_scan(lengths.begin(), lengths.end(), offsets.begin(), 0);
  std::string joined(static_cast<std::size_t>(offsets.back() + lengths.back()), '\0');
  check_mpi(MPI_Allgatherv(text.data(), length, MPI_CHAR, joined.data(), lengths.data(), offsets.data(),
                           MPI_CHAR, handle_),
            "MPI_Allgatherv");
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < lengths.size(); ++i)
    texts.push_back(
        joined.substr(static_cast<std::size_t>(offsets[i]), static_cast<std::size_t>(lengths[i])));
  return texts;
}

std::vector<std::vector<float>> Communicator::all_gather_to_first(std::span<const float> block) const {
  const std::int64_t own = static_cast<std::int64_t>(block.size());
  const std::vector<std::int64_t> sizes = all_gather(std::span(&own, 1));
  std::vector<std::vector<float>> blocks;
  // One rank after the other, so that rank 0 needs no second copy and no count exceeds an int.
  for (int source = 0; source < size_; ++source) {
    const auto total = static_cast<std::size_t>(sizes[static_cast<std::size_t>(source)]);
    if (rank_ == 0) blocks.emplace_back(total);
    if (rank_ == 0 && source == 0) {
      std::copy(block.begin(), block.end(), blocks.back().begin());
      continue;
    }
    for (std::size_t begin = 0; begin < total && (rank_ == 0 || rank_ == source); begin += largest_message) {
      const int count = static_cast<int>(std::min(largest_message, total - begin));
      if (rank_ == source) {
        check_mpi(MPI_Send(block.data() + begin, count, MPI_FLOAT, 0, 0, handle_), "MPI_Send");
      } else {
        check_mpi(
            MPI_Recv(blocks.back().data() + begin, count, MPI_FLOAT, source, 0, handle_, MPI_STATUS_IGNORE),
            "MPI_Recv");
      }
    }
  }
  return blocks;
}

void Communicator::all_broadcast(std::span<float> block, int source) const {
  for (std::size_t begin = 0; begin < block.size(); begin += largest_message) {
    const int count = static_cast<int>(std::min(largest_message, block.size() - begin));
    check_mpi(MPI_Bcast(block.data() + begin, count, MPI_FLOAT, source, handle_), "MPI_Bcast");
  }
}

std::string Communicator::all_broadcast(const std::string& text) const {
  std::uint64_t length = text.size();
  check_mpi(MPI_Bcast(&length, 1, MPI_UINT64_T, 0, handle_), "MPI_Bcast");
  std::string copy = text;
  copy.resize(length);
  check_mpi(MPI_Bcast(copy.data(), static_cast<int>(length), MPI_CHAR, 0, handle_), "MPI_Bcast");
  return copy;
}

}  // namespace comigs::comm
