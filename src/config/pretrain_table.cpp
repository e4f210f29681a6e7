// All options of `comigs pretrain`. To add one: a member in pretrain.hpp and a row here.
#include "comigs/config/option.hpp"

namespace comigs::config {
namespace {

constexpr double most = 1'000'000;  // of anything counted: products of two such counts stay far from overflow

constexpr Section sections[] = {
    {"pretrain", "a small base model, trained from scratch by all ranks together"}};

constexpr Group<Pretrain> pretrain{"pretrain"};

constexpr Option<Pretrain> options[] = {
    pretrain.option<&Pretrain::data>("data", "FOLDER", "data-set folder whose manifest has a base corpus", {},
                                     {.required = true}),
    pretrain.option<&Pretrain::output>("output", "FOLDER", "Hugging Face folder to write", {},
                                       {.required = true, .determines_numbers = false}),
    pretrain.option<&Pretrain::layers>("layers", "N", "transformer blocks", between(1, 1000)),
    pretrain.option<&Pretrain::width>("width", "N", "width of the residual stream; a multiple of heads",
                                      between(1, 65536)),
    pretrain.option<&Pretrain::heads>("heads", "N", "attention heads a block", between(1, 1024)),
    pretrain.option<&Pretrain::context_tokens>("context_tokens", "TOKENS",
                                               "length of a sequence, and of the model's position table",
                                               between(2, most)),
    pretrain.option<&Pretrain::batch_sequences>(
        "batch_sequences", "SEQUENCES", "sequences of a step, over all ranks together", between(1, most)),
    pretrain.option<&Pretrain::steps>("steps", "STEPS", "optimiser steps", between(0, most)),
    pretrain.option<&Pretrain::learning_rate>("learning_rate", "RATE", "peak rate", above(0)),
    pretrain.option<&Pretrain::warmup_fraction>("warmup_fraction", "FRACTION",
                                                "share of the steps in which the rate rises", between(0, 1)),
    pretrain.option<&Pretrain::final_fraction>("final_fraction", "FRACTION",
                                               "the cosine ends at this fraction of the peak", between(0, 1)),
    pretrain.option<&Pretrain::beta1>("beta1", "FRACTION", "decay of the first moment", from_to_below(0, 1)),
    pretrain.option<&Pretrain::beta2>("beta2", "FRACTION", "decay of the second moment", from_to_below(0, 1)),
    pretrain.option<&Pretrain::epsilon>("epsilon", "NUMBER", "added to the root of the second moment",
                                        above(0)),
    pretrain.option<&Pretrain::weight_decay>("weight_decay", "NUMBER", "decoupled, times the learning rate",
                                             at_least(0)),
    pretrain.option<&Pretrain::evaluate_every>(
        "evaluate_every", "STEPS", "steps between evaluations; the last always is", between(1, most)),
    pretrain.option<&Pretrain::seed>("seed", "N", "seed of every random stream"),
    pretrain.option<&Pretrain::device>("device", "DEVICE", "where a rank computes", {},
                                       {.determines_numbers = false}),
    pretrain.option<&Pretrain::threads>("threads", "N", "compute threads a rank; 0: its share of the cores",
                                        between(0, 4096), {.determines_numbers = false}),
    pretrain.option<&Pretrain::patience>(
        "patience", "SECONDS",
        "longest wait of ranks for one that does not come and is not stopped; 0: for ever", at_least(0),
        {.determines_numbers = false}),
};

}  // namespace

Table<Pretrain> pretrain_table() { return {.sections = sections, .options = options}; }

}  // namespace comigs::config
