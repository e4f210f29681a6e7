// Reading, by a library that trusts what it reads, of a file from elsewhere.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>

namespace comigs::io {

/// Local. Has `read` done once in a process of its own, where it is without consequence, so that a library
/// that a damaged file makes crash or loop does not end this one. Throws DataError, naming `file`, where that
/// process crashed or took longer than `limit`; what `read` throws there is not passed on: do it again here.
void try_apart(const std::filesystem::path& file, const std::function<void()>& read,
               std::chrono::milliseconds limit = std::chrono::seconds(20));

}  // namespace comigs::io
