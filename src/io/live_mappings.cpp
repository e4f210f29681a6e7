#include "live_mappings.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "comigs/base/error.hpp"

namespace comigs::io {

void LiveMappings::add(const MappedFile& file) {
  const std::lock_guard guard(lock);
  // Not at the program's start: MPI installs a handler of its own, which prints nothing but addresses.
  if (newest == nullptr) install_handler();
  file.next_ = newest.load();
  newest = &file;
}

void LiveMappings::remove(const MappedFile& file) {
  const std::lock_guard guard(lock);
  std::atomic<const MappedFile*>* place = &newest;
  while (*place != &file) place = &place->load()->next_;
  *place = file.next_.load();
}

void LiveMappings::check_unchanged() {
  const std::lock_guard guard(lock);
  for (const MappedFile* file = newest; file != nullptr; file = file->next_) file->check_unchanged();
}

void LiveMappings::install_handler() {
  struct sigaction present = {}, own = {};
  own.sa_sigaction = &on_fault;
  own.sa_flags = SA_SIGINFO;
  sigemptyset(&own.sa_mask);
  sigaction(SIGBUS, nullptr, &present);
  if ((present.sa_flags & SA_SIGINFO) != 0 && present.sa_sigaction == &on_fault) return;
  before = present;
  sigaction(SIGBUS, &own, nullptr);
}

// Only what a signal handler may do: no memory is taken, nothing is locked.
void LiveMappings::on_fault(int signal, siginfo_t* info, void*) {
  const auto* address = static_cast<const std::byte*>(info->si_addr);
  for (const MappedFile* file = newest; file != nullptr; file = file->next_)
    if (address >= file->data() && address < file->data() + file->size_bytes()) end_process(*file);
  // Not ours: the instruction is tried again, and who was there before handles it.
  sigaction(signal, &before, nullptr);
}

void LiveMappings::end_process(const MappedFile& file) {
  struct stat now {};
  const bool is_shorter =
      ::stat(file.path_.c_str(), &now) == 0 && static_cast<std::size_t>(now.st_size) < file.size_bytes();
  std::array<char, 8192> text{};
  const auto written =
      is_shorter
          ? fmt::format_to_n(text.data(), text.size(),
                             "comigs: '{}' was cut while it was in use: {} bytes now, {} when it was "
                             "opened\n",
                             file.path_.c_str(), static_cast<std::int64_t>(now.st_size), file.size_bytes())
          : fmt::format_to_n(text.data(), text.size(),
                             "comigs: '{}' cannot be read any more; it was opened and mapped before\n",
                             file.path_.c_str());
  const std::size_t length = std::min(written.size, text.size());
  if (::write(STDERR_FILENO, text.data(), length) < 0) ::_exit(static_cast<int>(ExitCode::failed));
  ::_exit(static_cast<int>(is_shorter ? ExitCode::bad_input : ExitCode::failed));
}

}  // namespace comigs::io
