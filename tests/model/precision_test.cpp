// Which processors are fast in bfloat16, by what they are.
#include "comigs/model/precision.hpp"

#include <boost/test/unit_test.hpp>

namespace comigs::model {

BOOST_AUTO_TEST_CASE(products_in_bfloat16_are_chosen_where_the_processor_is_made_for_them) {
  const CpuProducts plain{}, zen_4{.vectors = true}, cooper_lake{.vectors = true},
      sapphire_rapids{.tiles = true, .vectors = true, .expects_tiles = true},
      with_hidden_tiles{.vectors = true, .expects_tiles = true};
  BOOST_TEST(!are_fast_in_bf16(plain));
  BOOST_TEST(are_fast_in_bf16(zen_4));
  BOOST_TEST(are_fast_in_bf16(cooper_lake));
  BOOST_TEST(are_fast_in_bf16(sapphire_rapids));
  BOOST_TEST(!are_fast_in_bf16(with_hidden_tiles));
}

}  // namespace comigs::model
