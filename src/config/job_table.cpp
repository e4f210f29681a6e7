// All options of `comigs train`. To add one: a member in config.hpp and a row here.
#include "comigs/config/option.hpp"

namespace comigs::config {
namespace {

constexpr double most = 1'000'000;  // of anything counted: products of two such counts stay far from overflow

constexpr Section sections[] = {
    {"run", "how much is run, where, and what is kept"},
    {"data", "what the users learn from"},
    {"model", "the frozen model below"},
    {"method", "who shares what; `comigs methods` lists them"},
    {"optimiser", "AdamW and its learning rates"},
    {"user", "for every user alike; for one user [user.I], --user.I.NAME, or one value a user: 4,2,2,2"},
};

constexpr Group<UserJob, &UserJob::common, &Config::run> run{"run"};
constexpr Group<UserJob, &UserJob::common, &Config::data> data{"data"};
constexpr Group<UserJob, &UserJob::common, &Config::model> model{"model"};
constexpr Group<UserJob, &UserJob::common, &Config::method> method{"method"};
constexpr Group<UserJob, &UserJob::common, &Config::optimiser> optimiser{"optimiser"};
constexpr Group<UserJob, &UserJob::user> user{"user"};

constexpr std::string_view automatic = "auto";

/// A number, or the word `auto`, which stands for `automatic_experts`.
constexpr Option<UserJob> experts_option(Option<UserJob> option) {
  option.info.type = [] { return std::string("auto or an integer"); };
  option.info.accepts = [](std::string_view text, const Range& range) {
    std::int64_t number = 0;
    return text == automatic || (read(text, number) && range.contains(static_cast<double>(number)));
  };
  option.set = [](UserJob& job, std::string_view text) {
    job.user.experts = automatic_experts;
    if (text != automatic) (void)read(text, job.user.experts);
  };
  option.print = [](const UserJob& job) {
    return job.user.experts == automatic_experts ? std::string(automatic) : config::print(job.user.experts);
  };
  return option;
}

constexpr Option<UserJob> options[] = {
    run.option<&Run::output>("output", "FOLDER", "folder of results.h5", {},
                             {.required = true, .determines_numbers = false}),
    run.option<&Run::seed>("seed", "N", "seed of every random stream"),
    run.option<&Run::rounds>("rounds", "ROUNDS", "communication rounds", between(0, most)),
    run.option<&Run::evaluate_every>("evaluate_every", "ROUNDS",
                                     "rounds between evaluations; first and last always are",
                                     between(1, most)),
    run.option<&Run::weights_every>("weights_every", "ROUNDS",
                                    "rounds between stored LoRA factors; 0: the last round only",
                                    between(0, most)),
    run.option<&Run::train_evaluation_tokens>(
        "train_evaluation_tokens", "TOKENS",
        "leading training tokens that are evaluated; 0: all; auto: none, "
        "the losses of the round's expert steps tell",
        at_least(0)),
    run.option<&Run::precision>("precision", "TYPE", "frozen weights"),
    run.option<&Run::activations>(
        "activations", "TYPE",
        "what is computed beside bf16 weights; auto: bf16 where the devices of all ranks are fast in it", {},
        {.determines_numbers = false}),
    run.option<&Run::device>("device", "DEVICE", "where a rank computes", {},
                             {.determines_numbers = false, .is_of_rank = true}),
    run.option<&Run::threads>("threads", "N", "compute threads a rank; 0: its share of the cores",
                              between(0, 4096), {.determines_numbers = false, .is_of_rank = true}),
    run.option<&Run::communication>("communication", "TYPE", "what aggregations send; sums are float32"),
    run.option<&Run::reproducible>("reproducible", "", "sum in rank order: bits do not depend on placement"),
    run.option<&Run::resume>("resume", "WHEN", "auto: go on with what lies in the output folder, if anything",
                             {}, {.determines_numbers = false}),
    run.option<&Run::checkpoint_every>("checkpoint_every", "ROUNDS",
                                       "rounds between checkpoints; 0: only where the run is interrupted",
                                       between(0, most), {.determines_numbers = false}),
    run.option<&Run::on_user_failure>("on_user_failure", "WHAT",
                                      "when a user's training fails: stop, or continue with those left", {},
                                      {.determines_numbers = false}),
    run.option<&Run::patience>(
        "patience", "SECONDS",
        "longest wait of ranks for one that does not come and is not stopped; 0: for ever", at_least(0),
        {.determines_numbers = false}),

    data.option<&Data::folder>(
        "folder", "FOLDER", "data-set folder with manifest.json", {},
        {.flag = "data", .required = true, .determines_numbers = false, .is_of_rank = true}),

    model.option<&Model::folder>(
        "folder", "FOLDER", "Hugging Face folder: config.json, model.safetensors or shards", {},
        {.flag = "model", .required = true, .determines_numbers = false, .is_of_rank = true}),
    model.option<&Model::init_adapter>(
        "init_adapter", "FOLDER",
        "PEFT LoRA adapter (adapter_config.json, adapter_model.safetensors) that attention and every expert "
        "begin as; routers begin as ever, so that experts then differ by routing and data alone",
        {}, {.determines_numbers = false, .is_of_rank = true}),

    method.option<&Method::name>("name", "NAME", "row of the method table", {},
                                 {.flag = "method", .required = true}),
    method.option<&Method::router_every>(
        "router_every", "STEPS", "tau: expert steps of the run between router updates", between(1, most)),
    method.option<&Method::router_steps>("router_steps", "STEPS", "s: optimiser steps of a router update",
                                         between(0, most)),
    method.option<&Method::load_balancing>("load_balancing", "KIND", "load-balancing loss"),
    method.option<&Method::load_balancing_weight>("load_balancing_weight", "WEIGHT",
                                                  "lambda: weight of the load-balancing loss", at_least(0)),
    method.option<&Method::generalist_importance>(
        "generalist_importance", "SHARE",
        "share of the tokens that load balancing means for a single generalist; the others share the rest",
        {.low = 0, .high = 1, .low_excluded = true, .high_excluded = true}),
    method.option<&Method::load_balancing_strength>("load_balancing_strength", "STRENGTH",
                                                    "paper: the weights of the load-balancing loss sum to 1; "
                                                    "published: as large as in the authors' program"),
    method.option<&Method::train_on>("train_on", "SPLITS", "what expert steps learn from"),
    method.option<&Method::carry_phase_gradients>(
        "carry_phase_gradients", "", "keep each phase's gradients for the other, as the published code does"),
    method.option<&Method::averaging>("averaging", "WEIGHTS", "weights of users in averages"),
    method.option<&Method::rank_regulariser>(
        "rank_regulariser", "WEIGHT",
        "HetLoRA's lambda: weight of the norm of ranks to be pruned; auto: "
        "0.005 where the method prunes, 0 elsewhere",
        at_least(0)),
    method.option<&Method::pruning_strength>("pruning_strength", "SHARE",
                                             "HetLoRA: share of its rank that a user keeps when it is pruned",
                                             {.low = 0, .high = 1, .low_excluded = true}),
    method.option<&Method::mixing>(
        "mixing", "WHEN", "PCL mixes after every round, or after those only in which it renews its weights"),
    method.option<&Method::gate_warmup_rounds>("gate_warmup_rounds", "ROUNDS",
                                               "first rounds, in which a gate by sequence that is trained "
                                               "with its prompts learns alone, to tell gate_targets apart",
                                               between(0, most)),
    method.option<&Method::gate_targets>("gate_targets", "TARGETS",
                                         "what a gate's warm-up tells apart: categories of examples, one "
                                         "group a category; clusters of what it reads of them (k-means), as "
                                         "many as there are groups"),

    optimiser.option<&Optimiser::final_fraction>(
        "final_fraction", "FRACTION", "the cosine ends at this fraction of the peak", between(0, 1)),
    optimiser.option<&Optimiser::warmup_fraction>(
        "warmup_fraction", "FRACTION",
        "share of the run's steps (those after a gate's warm-up) in which the "
        "rate rises",
        between(0, 1)),
    optimiser.option<&Optimiser::beta1>("beta1", "FRACTION", "decay of the first moment",
                                        from_to_below(0, 1)),
    optimiser.option<&Optimiser::beta2>("beta2", "FRACTION", "decay of the second moment",
                                        from_to_below(0, 1)),
    optimiser.option<&Optimiser::epsilon>("epsilon", "NUMBER", "added to the root of the second moment",
                                          above(0)),
    optimiser.option<&Optimiser::weight_decay>(
        "weight_decay", "NUMBER",
        "decoupled, times the learning rate; auto: 0.01 for LoRA, 0 for "
        "prompts",
        at_least(0)),

    experts_option(
        user.option<&User::experts>("experts", "N",
                                    "experts in every MLP block; auto: as many as memory (beside parts of "
                                    "the batch as large as with one) and step_budget allow, 16 at most",
                                    between(1, 64))),
    user.option<&User::lora_rank>("lora_rank", "N", "rank of every LoRA", between(1, 4096)),
    user.option<&User::attention_rank>("attention_rank", "N",
                                       "rank of the LoRA beside attention, alike for all users; 0: lora_rank",
                                       between(0, 4096)),
    user.option<&User::attention_sharing>(
        "attention_sharing", "WHOSE",
        "the LoRA beside attention: shared as the method has it, or the user's own"),
    user.option<&User::lora_alpha>("lora_alpha", "NUMBER", "LoRA's scale: gamma = alpha / sqrt(rank)",
                                   above(0)),
    user.option<&User::prompt_tokens>("prompt_tokens", "N",
                                      "soft prompts in each group, where prompts are trained: a group is an "
                                      "expert",
                                      between(1, 4096)),
    user.option<&User::prompt_layer>("prompt_layer", "LAYER",
                                     "layer (from 0) that prompts enter; auto: a third of the way up, as in "
                                     "the paper; 0: prompt tuning",
                                     between(0, 4096)),
    user.option<&User::gate_width>("gate_width", "N",
                                   "hidden layer of the gate that weighs groups of prompts by sequence",
                                   between(1, 65536)),
    user.option<&User::top_k>("top_k", "N",
                              "experts active for a token, weighted by a softmax over their logits; 1 of "
                              "several: by its probability among all. At most the user's experts",
                              between(1, 64)),
    user.option<&User::batch_sequences>("batch_sequences", "SEQUENCES", "sequences of a step",
                                        between(1, most)),
    user.option<&User::micro_batch_sequences>(
        "micro_batch_sequences", "SEQUENCES",
        "most sequences run at a time; 0: the whole batch. Load balancing is taken over each such part",
        between(0, most)),
    user.option<&User::memory>("memory", "GIB",
                               "memory for base, training and activations, by smaller micro-batches; 0: any",
                               between(0, most)),
    user.option<&User::step_budget>(
        "step_budget", "RATIO", "experts = auto: most FLOPs of a step, those with one expert being 1; 0: any",
        between(0, most), {.determines_numbers = false}),
    user.option<&User::context_tokens>("context_tokens", "TOKENS", "length of a sequence", between(2, most)),
    user.option<&User::local_steps>("local_steps", "STEPS", "optimiser steps between two aggregations",
                                    between(1, most)),
    user.option<&User::expert_learning_rate>(
        "expert_learning_rate", "RATE",
        "peak rate of the LoRA factors, or of the prompts, which need a larger one", above(0)),
    user.option<&User::router_learning_rate>("router_learning_rate", "RATE", "constant rate of the routers",
                                             above(0)),
    user.option<&User::train_tokens>(
        "train_tokens", "TOKENS", "leading tokens of the training split that are used; 0: all", at_least(0)),
    user.option<&User::train_share>(
        "train_share", "SHARE",
        "leading share of the training split that is used; the smaller of both counts",
        {.low = 0, .high = 1, .low_excluded = true}),
    user.option<&User::generalists>("generalists", "IDS",
                                    "generalists that the user holds (comigs-mgxs), joined by '+': 0+2"),
};

}  // namespace

Table<UserJob> job_table() { return {.sections = sections, .options = options, .per_user = "user"}; }

}  // namespace comigs::config
