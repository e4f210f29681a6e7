// Token-level routing of texts as groups of results.h5.
#pragma once

#include <cstdint>
#include <vector>

#include "comigs/io/hdf5.hpp"
#include "comigs/results/stored_run.hpp"

namespace comigs::results {

/// Writes tokens/<name>/{ids, text, score}; what was there under that name goes.
void write_tokens(io::hdf5::Group root, const RoundShape& shape, const TokenRouting& text);

/// An upper bound of what they add to the file.
[[nodiscard]] std::uint64_t most_growth_bytes(const std::vector<TokenRouting>& texts);

}  // namespace comigs::results
