// A job file's text, for three users: what is accepted comes back from its own echo.
#include "comigs/config/describe.hpp"
#include "comigs/config/parse.hpp"
#include "comigs/config/resolve.hpp"

#include "input.hpp"

using namespace comigs;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::int64_t users = 3;
  fuzz::accept_or_refuse([&] {
    // As one that a run recorded: no other file is read.
    const config::Layered layered = config::parse_recorded(fuzz::text(fuzz::input(data, size)), "fuzzed.ini");
    const config::Config found = config::resolve(layered, users);
    fuzz::require(config::validate(found, users).empty());
    const std::string echo = config::echo(found);
    const config::Config again = config::resolve(config::parse_recorded(echo, "echo"), users);
    fuzz::require(config::echo(again) == echo && config::differences(again, found).empty());
  });
  return 0;
}
