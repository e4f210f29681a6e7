// All options of `comigs generate`. To add one: a member in generate.hpp and a row here.
#include "comigs/config/option.hpp"
#include "model_choice_rows.hpp"

namespace comigs::config {
namespace {

constexpr double most = 1'000'000;  // of anything counted: products of two such counts stay far from overflow

constexpr Section sections[] = {{"generate", "which models, which texts, and how they go on"}};

constexpr Group<Generate> generate{"generate"};
constexpr ModelChoiceRows<Group<Generate, &Generate::models>> models{{"generate"}};

constexpr Option<Generate> options[] = {
    models.model(),
    models.users(),
    generate.option<&Generate::prompts>("prompts", "FILE", "texts that 'python -m data_prep probes' made", {},
                                        {.required = true}),
    generate.option<&Generate::tokens>("tokens", "TOKENS", "most that are added to a text", between(1, most)),
    generate.option<&Generate::temperature>(
        "temperature", "NUMBER", "logits are divided by it, and tokens drawn; 0: always the likeliest token",
        between(0, 1000)),
    generate.option<&Generate::sample_top_k>("sample_top_k", "TOKENS",
                                             "draw among so many of the likeliest tokens only; 0: all",
                                             between(0, most)),
    generate.option<&Generate::sample_top_p>(
        "sample_top_p", "FRACTION",
        "draw among the fewest of the likeliest tokens that have so much of the probability", between(0, 1)),
    generate.option<&Generate::seed>("seed", "N", "of what is drawn; models draw alike"),
    generate.option<&Generate::with_base>("with_base", "", "the base model too, before the users of the run"),
    models.precision(),
    models.device(),
    models.threads(),
    generate.option<&Generate::json>("json", "", "one JSON object instead of texts", {},
                                     {.determines_numbers = false}),
};

}  // namespace

Table<Generate> generate_table() { return {.sections = sections, .options = options, .positional = "run"}; }

}  // namespace comigs::config
