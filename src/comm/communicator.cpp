#include "comigs/comm/communicator.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "comigs/base/error.hpp"
#include "guard.hpp"

namespace comigs::comm {

namespace {

// MPI counts are ints; longer blocks travel in pieces of this many elements.
constexpr std::size_t largest_message = std::size_t{1} << 28;

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
  std::vector<int> ranks(static_cast<std::size_t>(size_));
  std::iota(ranks.begin(), ranks.end(), 0);
  members_ = ranks;
  if (handle_ == MPI_COMM_WORLD) return;
  MPI_Group group = MPI_GROUP_NULL, all = MPI_GROUP_NULL;
  check_mpi(MPI_Comm_group(handle_, &group), "MPI_Comm_group");
  check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &all), "MPI_Comm_group");
  check_mpi(MPI_Group_translate_ranks(group, size_, ranks.data(), all, members_.data()),
            "MPI_Group_translate_ranks");
  check_mpi(MPI_Group_free(&group), "MPI_Group_free");
  check_mpi(MPI_Group_free(&all), "MPI_Group_free");
}

Communicator Communicator::world() { return {MPI_COMM_WORLD, false}; }

Communicator::Communicator(Communicator&& other) noexcept
    : handle_(std::exchange(other.handle_, MPI_COMM_NULL)),
      owned_(std::exchange(other.owned_, false)),
      rank_(other.rank_),
      size_(other.size_),
      members_(std::move(other.members_)),
      names_(std::move(other.names_)),
      look_(std::move(other.look_)),
      patience_seconds_(other.patience_seconds_) {}

Communicator& Communicator::operator=(Communicator&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(owned_, other.owned_);
  std::swap(rank_, other.rank_);
  std::swap(size_, other.size_);
  std::swap(members_, other.members_);
  std::swap(names_, other.names_);
  std::swap(look_, other.look_);
  std::swap(patience_seconds_, other.patience_seconds_);
  return *this;
}

Communicator::~Communicator() {
  // Freeing is collective: while one rank unwinds the others may never come.
  if (!owned_ || std::uncaught_exceptions() > 0) return;
  const Guard guard("MPI_Comm_free", patience_seconds_, members_[static_cast<std::size_t>(rank_)], namer());
  MPI_Comm_free(&handle_);
}

std::function<std::string(int)> Communicator::namer() const {
  return [names = names_](int rank) {
    const auto index = static_cast<std::size_t>(rank);
    return index < names.size() ? names[index] : fmt::format("rank {}", rank);
  };
}

Communicator Communicator::group(MPI_Comm handle) const {
  Communicator part(handle, true);
  part.names_ = names_;
  part.look_ = look_;
  part.patience_seconds_ = patience_seconds_;
  return part;
}

std::optional<Communicator> Communicator::all_split_into(int color) const {
  MPI_Comm part = MPI_COMM_NULL;
  all_guarded("MPI_Comm_split", [&] { return MPI_Comm_split(handle_, color, rank_, &part); });
  if (color == MPI_UNDEFINED) return std::nullopt;
  return group(part);
}

Communicator Communicator::all_duplicate() const {
  MPI_Comm copy = MPI_COMM_NULL;
  all_finish("MPI_Comm_idup", [&](MPI_Request* request) { return MPI_Comm_idup(handle_, &copy, request); });
  return group(copy);
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
  all_guarded("MPI_Comm_split_type", [&] {
    return MPI_Comm_split_type(handle_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &part);
  });
  return group(part);
}

std::string Communicator::name_of(int rank) const {
  return namer()(members_.at(static_cast<std::size_t>(rank)));
}

double Communicator::all_max(double value) const {
  all_finish("MPI_Iallreduce", [&](MPI_Request* request) {
    return MPI_Iallreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_MAX, handle_, request);
  });
  return value;
}

std::int64_t Communicator::all_sum(std::int64_t value) const {
  all_finish("MPI_Iallreduce", [&](MPI_Request* request) {
    return MPI_Iallreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_SUM, handle_, request);
  });
  return value;
}

template <class Number>
std::vector<Number> Communicator::all_gather_numbers(std::span<const Number> block, MPI_Datatype type) const {
  std::vector<Number> all(block.size() * static_cast<std::size_t>(size_));
  const int count = static_cast<int>(block.size());
  all_finish("MPI_Iallgather", [&](MPI_Request* request) {
    return MPI_Iallgather(block.data(), count, type, all.data(), count, type, handle_, request);
  });
  return all;
}

std::vector<double> Communicator::all_gather(std::span<const double> block) const {
  return all_gather_numbers(block, MPI_DOUBLE);
}

std::vector<std::int64_t> Communicator::all_gather(std::span<const std::int64_t> block) const {
  return all_gather_numbers(block, MPI_INT64_T);
}

std::vector<std::string> Communicator::all_gather(const std::string& text) const {
  const int length = static_cast<int>(text.size());
  const std::vector<int> lengths = all_gather_numbers(std::span(&length, 1), MPI_INT);
  std::vector<int> offsets(lengths.size());
  std::exclusive_scan(lengths.begin(), lengths.end(), offsets.begin(), 0);
  std::string joined(static_cast<std::size_t>(offsets.back() + lengths.back()), '\0');
  all_finish("MPI_Iallgatherv", [&](MPI_Request* request) {
    return MPI_Iallgatherv(text.data(), length, MPI_CHAR, joined.data(), lengths.data(), offsets.data(),
                           MPI_CHAR, handle_, request);
  });
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
      all_finish(rank_ == source ? "MPI_Isend" : "MPI_Irecv", [&](MPI_Request* request) {
        return rank_ == source
                   ? MPI_Isend(block.data() + begin, count, MPI_FLOAT, 0, 0, handle_, request)
                   : MPI_Irecv(blocks.back().data() + begin, count, MPI_FLOAT, source, 0, handle_, request);
      });
    }
  }
  return blocks;
}

void Communicator::all_broadcast(std::span<float> block, int source) const {
  for (std::size_t begin = 0; begin < block.size(); begin += largest_message) {
    const int count = static_cast<int>(std::min(largest_message, block.size() - begin));
    all_finish("MPI_Ibcast", [&](MPI_Request* request) {
      return MPI_Ibcast(block.data() + begin, count, MPI_FLOAT, source, handle_, request);
    });
  }
}

std::string Communicator::all_broadcast(const std::string& text) const {
  std::uint64_t length = text.size();
  all_finish("MPI_Ibcast",
             [&](MPI_Request* request) { return MPI_Ibcast(&length, 1, MPI_UINT64_T, 0, handle_, request); });
  std::string copy = text;
  copy.resize(length);
  all_finish("MPI_Ibcast", [&](MPI_Request* request) {
    return MPI_Ibcast(copy.data(), static_cast<int>(length), MPI_CHAR, 0, handle_, request);
  });
  return copy;
}

}  // namespace comigs::comm
