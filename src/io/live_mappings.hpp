// The mapped files of this process.
#pragma once

#include <atomic>
#include <csignal>
#include <mutex>

#include "comigs/io/mapped_file.hpp"

namespace comigs::io {

/// A list that is changed under a lock and walked without one by the handler of SIGBUS, the signal of who
/// touches a page of a mapping that the file does not have any more.
class LiveMappings {
 public:
  static void add(const MappedFile& file);
  static void remove(const MappedFile& file);
  static void check_unchanged();

 private:
  static void install_handler();
  static void on_fault(int signal, siginfo_t* info, void* context);
  [[noreturn]] static void end_process(const MappedFile& file);

  static inline std::mutex lock;
  static inline std::atomic<const MappedFile*> newest = nullptr;
  static inline struct sigaction before {};  ///< who handled SIGBUS until then
};

}  // namespace comigs::io
