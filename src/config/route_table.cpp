// All options of `comigs route`. To add one: a member in route.hpp and a row here.
#include "comigs/config/option.hpp"

namespace comigs::config {
namespace {

constexpr double most_tokens = 65536;  // of a text: scores are kept for each user, layer and expert

constexpr Section sections[] = {{"route", "texts through the models of a finished run's users"}};

constexpr Group<Route> route{"route"};

constexpr Option<Route> options[] = {
    route.option<&Route::probes>(
        "probes", "FILE",
        "texts that 'python -m data_prep probes' made; without: the first tokens of every user's test split"),
    route.option<&Route::tokens>("tokens", "TOKENS", "how many of every user's test split",
                                 between(1, most_tokens)),
    route.option<&Route::model>("model", "FOLDER", "base model, where it is not in its recorded place"),
    route.option<&Route::data>("data", "FOLDER", "data set, where it is not in its recorded place"),
    route.option<&Route::device>("device", "DEVICE", "where to compute", {}, {.determines_numbers = false}),
    route.option<&Route::threads>("threads", "N", "compute threads; 0: the cores it may use",
                                  between(0, 4096), {.determines_numbers = false}),
};

}  // namespace

Table<Route> route_table() { return {.sections = sections, .options = options, .positional = "run"}; }

}  // namespace comigs::config
