// All options of `comigs evaluate`. To add one: a member in evaluate.hpp and a row here.
#include "comigs/config/option.hpp"
#include "model_choice_rows.hpp"

namespace comigs::config {
namespace {

constexpr double most = 1'000'000;  // of anything counted: products of two such counts stay far from overflow

constexpr Section sections[] = {{"evaluate", "which models, on which texts"}};

constexpr Group<Evaluate> evaluate{"evaluate"};
constexpr ModelChoiceRows<Group<Evaluate, &Evaluate::models>> models{{"evaluate"}};

constexpr Option<Evaluate> options[] = {
    models.model(),
    evaluate.option<&Evaluate::data>("data", "FOLDER",
                                     "data set with the base model's tokens; unsaid: the run's"),
    models.users(),
    evaluate.option<&Evaluate::split>("split", "SPLIT", "which texts of every user"),
    evaluate.option<&Evaluate::tokens>("tokens", "TOKENS",
                                       "how many of the split, from its beginning; 0: all, of a run's train "
                                       "those it evaluated, or trained on",
                                       at_least(0)),
    evaluate.option<&Evaluate::context_tokens>(
        "context_tokens", "TOKENS",
        "length of a window; 0: as each user trained, for a base 128 or all its positions if fewer",
        between(0, most)),
    evaluate.option<&Evaluate::micro_batch_sequences>(
        "micro_batch_sequences", "SEQUENCES",
        "most sequences run at a time; 0: as the run evaluated, for a base 32", between(0, most)),
    models.precision(),
    models.device(),
    models.threads(),
    evaluate.option<&Evaluate::json>("json", "", "one JSON object instead of a table", {},
                                     {.determines_numbers = false}),
};

}  // namespace

Table<Evaluate> evaluate_table() { return {.sections = sections, .options = options, .positional = "run"}; }

}  // namespace comigs::config
