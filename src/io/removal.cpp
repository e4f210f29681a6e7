#include "comigs/io/removal.hpp"

#include <unistd.h>

#include <vector>

namespace comigs::io {
namespace {

namespace fs = std::filesystem;

bool is_real_folder(const fs::path& folder) {
  std::error_code none;
  return fs::is_directory(fs::symlink_status(folder, none));
}

bool is_ours_there(const fs::directory_entry& entry, const IsOurs& is_ours) {
  std::error_code none;
  return entry.symlink_status(none).type() == fs::file_type::regular &&
         is_ours(entry.path().filename().string());
}

}  // namespace

bool holds_only(const fs::path& folder, const IsOurs& is_ours) {
  if (!is_real_folder(folder)) return false;
  std::error_code failed;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, failed))
    if (!is_ours_there(entry, is_ours)) return false;
  return !failed;
}

void remove_ours(const fs::path& folder, const IsOurs& is_ours) {
  if (!is_real_folder(folder)) return;
  std::vector<fs::path> ours;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored))
    if (is_ours_there(entry, is_ours)) ours.push_back(entry.path());
  for (const fs::path& file : ours) ::unlink(file.c_str());
  remove_empty(folder);
}

bool remove_empty(const fs::path& folder) { return ::rmdir(folder.c_str()) == 0; }

}  // namespace comigs::io
