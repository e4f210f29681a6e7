#include "owner_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "comigs/base/error.hpp"
#include "comigs/base/printable.hpp"
#include "comigs/io/atomic_file.hpp"

namespace comigs::io {
namespace {

using Json = nlohmann::json;

constexpr std::string_view format_name = "comigs-owner";
constexpr std::size_t most_bytes = 4096;

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

std::string machine_name() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  std::error_code none;
  const std::string processes = std::filesystem::read_symlink("/proc/self/ns/pid", none).string();
  return (boot.empty() ? host_name() : boot) + "/" + processes;
}

// State and start time of a process, the third and the 22nd entry of its line; the second, its name, may hold
// anything.
std::pair<char, std::int64_t> look_at(std::int64_t process) {
  std::ifstream file(fmt::format("/proc/{}/stat", process));
  const std::string line{std::istreambuf_iterator<char>(file), {}};
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return {'?', 0};
  std::istringstream rest(line.substr(name_end + 1));
  constexpr int entries_between = 18;
  char state = '?';
  std::int64_t started = 0;
  std::string passed;
  rest >> state;
  for (int i = 0; i < entries_between; ++i) rest >> passed;
  rest >> started;
  return {state, started};
}

struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

std::optional<Owner> parse(const std::string& text) {
  try {
    const Json root = Json::parse(text);
    if (root.at("format").get<std::string>() != format_name) return std::nullopt;
    return Owner{.host = printable(root.at("host").get<std::string>()),
                 .machine = root.at("machine").get<std::string>(),
                 .process = root.at("process").get<std::int64_t>(),
                 .started = root.at("started").get<std::int64_t>(),
                 .token = root.at("token").get<std::string>()};
  } catch (const Json::exception&) {
    return std::nullopt;
  }
}

}  // namespace

Owner this_process() {
  return {.host = host_name(),
          .machine = machine_name(),
          .process = ::getpid(),
          .started = look_at(::getpid()).second,
          .token = random_hexadecimal()};
}

std::string describe(const Owner& owner) {
  return fmt::format("process {} on {}", owner.process, owner.host);
}

bool is_alive(const Owner& owner) {
  if (owner.process <= 0 || (::kill(static_cast<pid_t>(owner.process), 0) != 0 && errno == ESRCH))
    return false;
  const auto [state, started] = look_at(owner.process);
  return state != 'Z' && state != 'X' && (started == owner.started || started == 0);
}

bool FoundOwner::is_same_and_untouched(const FoundOwner& other) const {
  return owner.token == other.owner.token && inode == other.inode && touched.tv_sec == other.touched.tv_sec &&
         touched.tv_nsec == other.touched.tv_nsec;
}

std::optional<FoundOwner> read_owner(const std::filesystem::path& file) {
  const Descriptor opened{::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)};
  if (opened.value < 0 && errno == ENOENT) return std::nullopt;
  struct stat status {};
  std::array<char, most_bytes> content{};
  const auto cannot = [&] {
    return IoError(fmt::format("cannot read '{}': {}", file.string(), std::strerror(errno)));
  };
  if (opened.value < 0 && errno != ELOOP) throw cannot();
  ssize_t size = 0;
  if (opened.value >= 0) {
    if (::fstat(opened.value, &status) != 0) throw cannot();
    if (S_ISREG(status.st_mode)) size = ::read(opened.value, content.data(), content.size());
    if (size < 0) throw cannot();
  }
  const std::optional<Owner> owner = parse({content.data(), static_cast<std::size_t>(size)});
  if (!owner)
    throw ConfigError(
        fmt::format("'{}': found something else, expected none or comigs' own note of who holds the folder; "
                    "remove it or choose another folder",
                    file.string()));
  return FoundOwner{.owner = *owner, .inode = status.st_ino, .touched = status.st_mtim};
}

bool write_owner(const std::filesystem::path& file, const Owner& owner, bool replace) {
  const Json root = {{"format", format_name},    {"host", owner.host},       {"machine", owner.machine},
                     {"process", owner.process}, {"started", owner.started}, {"token", owner.token}};
  AtomicFile next(file);
  next.write(root.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
  if (!replace) return next.commit_if_absent();
  next.commit();
  return true;
}

}  // namespace comigs::io
