#include "coordinates.hpp"

#include <numeric>
#include <utility>

#include "columns.hpp"
#include "layout.hpp"

namespace comigs::results {
namespace {

using io::hdf5::Dataset;
using io::hdf5::Group;
using io::hdf5::Type;

void describe(Dataset labels, const std::string& dimension, const std::string& long_name) {
  labels.become_scale(dimension);
  labels.set_attribute("long_name", long_name);
}

void create_texts(Group& place, const std::string& dimension, const std::string& long_name,
                  const std::vector<std::string>& texts) {
  Dataset labels = place.create_dataset(dimension, Type::text, {texts.size()});
  labels.write(texts);
  describe(std::move(labels), dimension, long_name);
}

}  // namespace

Coordinates::Coordinates(Group root, const RunDescription& run, const RoundShape& shape)
    : root_(std::move(root)), shape_(shape), projections_(run.projections), categories_(run.categories) {
  for (const UserDescription& user : run.users) {
    user_names_.push_back(user.name);
  }
  for (const std::string dimension : {"round", "user", "layer"}) {
    create(root_.open_group("/"), dimension);
    homes_[dimension] = "/" + dimension;
  }
}

Dataset Coordinates::in(const std::string& group, const std::string& dimension) {
  Group place = root_.open_group(group);
  const auto [home, is_new] = homes_.try_emplace(dimension, "/" + group + "/" + dimension);
  if (is_new) {
    create(root_.open_group(group), dimension);
  } else if (!place.contains(dimension)) {
    place.link(dimension, home->second);
  }
  return root_.open_dataset(home->second);
}

void Coordinates::create(Group place, const std::string& dimension) {
  if (dimension == "round") {
    describe(place.create_view("round", Type::int64, {}, rows_path, 0), "round",
             "rounds of training done; 0 is before any");
  } else if (dimension == "layer") {
    create_numbers(place, dimension, "transformer layer");
  } else if (dimension == "expert") {
    create_numbers(place, dimension, "expert of a user; generalists come first");
  } else if (dimension == "category") {
    create_texts(place, dimension, "category of examples", categories_);
  } else if (dimension == "projection") {
    create_texts(place, dimension, "projection of the MLP block", projections_);
  } else {
    create_texts(place, dimension, dimension == "user" ? "user" : "user whose parameters came in",
                 user_names_);
  }
}

void Coordinates::create_numbers(Group& place, const std::string& dimension, const std::string& long_name) {
  std::vector<std::int64_t> numbers(length_of(dimension, shape_));
  std::iota(numbers.begin(), numbers.end(), 0);
  Dataset labels = place.create_dataset(dimension, Type::int64, {numbers.size()});
  labels.write(numbers);
  describe(std::move(labels), dimension, long_name);
}

}  // namespace comigs::results
