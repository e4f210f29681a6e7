// All options of `comigs prune`. To add one: a member in prune.hpp and a row here.
#include "comigs/config/option.hpp"

namespace comigs::config {
namespace {

constexpr double most = 1'000'000;  // of anything counted: products of two such counts stay far from overflow

constexpr Section sections[] = {{"prune", "zeros in the linear maps of a base model's blocks"}};

constexpr Group<Prune> prune{"prune"};

constexpr Option<Prune> options[] = {
    prune.option<&Prune::model>("model", "FOLDER", "base model, a Hugging Face folder", {},
                                {.required = true}),
    prune.option<&Prune::data>(
        "data", "FOLDER",
        "data set with the base model's tokens and a base corpus, on whose training text is calibrated; "
        "magnitude needs none"),
    prune.option<&Prune::output>("output", "FOLDER", "Hugging Face folder to write", {},
                                 {.required = true, .determines_numbers = false}),
    prune.option<&Prune::method>("method", "METHOD", "how the weights that go are chosen"),
    prune.option<&Prune::sparsity>("sparsity", "SHARE", "share of zeros, wherever they are; or --pattern"),
    prune.option<&Prune::pattern>(
        "pattern", "PATTERN",
        "zeros=N,of=M: N zeros (not N weights that stay) in each M consecutive inputs of an output"),
    prune.option<&Prune::calibration_sequences>(
        "calibration_sequences", "SEQUENCES",
        "drawn from the base corpus; their inputs to each linear map say which weights matter",
        between(1, most)),
    prune.option<&Prune::context_tokens>("context_tokens", "TOKENS",
                                         "length of a sequence; 0: the model's positions, at most 512",
                                         between(0, most)),
    prune.option<&Prune::seed>("seed", "N", "of where the sequences begin"),
    prune.option<&Prune::precision>(
        "precision", "TYPE", "frozen weights while calibrating; the output has the model's own precision"),
    prune.option<&Prune::device>("device", "DEVICE", "where calibration text is run", {},
                                 {.determines_numbers = false}),
    prune.option<&Prune::threads>("threads", "N", "compute threads; 0: the cores it may use",
                                  between(0, 4096), {.determines_numbers = false}),
    prune.option<&Prune::replace>("replace", "",
                                  "prune anew where --output holds a base that was pruned otherwise", {},
                                  {.determines_numbers = false}),
};

}  // namespace

Table<Prune> prune_table() { return {.sections = sections, .options = options}; }

}  // namespace comigs::config
