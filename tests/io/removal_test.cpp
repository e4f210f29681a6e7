// Removing what is ours, and nothing else.
#include "comigs/io/removal.hpp"

#include <sys/resource.h>

#include <boost/test/unit_test.hpp>
#include <fstream>

#include "comigs/base/error.hpp"
#include "comigs/io/atomic_file.hpp"
#include "comigs/io/mapped_file.hpp"
#include "support/temporary_folder.hpp"

namespace fs = std::filesystem;
using namespace comigs;

namespace {

bool is_ours(const std::string& name) { return name == "a" || name == "b"; }

struct Folder : TemporaryFolder {
  fs::path inner = folder / "inner";
  Folder() { fs::create_directory(inner); }
  static void write(const fs::path& path) { std::ofstream(path) << "content"; }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(removal, Folder)

BOOST_AUTO_TEST_CASE(a_folder_with_nothing_else_goes) {
  write(inner / "a");
  write(inner / "b");
  BOOST_TEST(io::holds_only(inner, is_ours));
  io::remove_ours(inner, is_ours);
  BOOST_TEST(!fs::exists(inner));
}

BOOST_AUTO_TEST_CASE(what_others_put_there_stays_with_its_folder) {
  write(inner / "a");
  write(inner / "notes");
  fs::create_directory(inner / "b");
  BOOST_TEST(!io::holds_only(inner, is_ours));
  io::remove_ours(inner, is_ours);
  BOOST_TEST(!fs::exists(inner / "a"));
  BOOST_TEST(fs::exists(inner / "notes"));
  BOOST_TEST(fs::is_directory(inner / "b"));
}

BOOST_AUTO_TEST_CASE(links_are_not_followed) {
  write(folder / "precious");
  fs::create_symlink(folder / "precious", inner / "a");
  BOOST_TEST(!io::holds_only(inner, is_ours));
  io::remove_ours(inner, is_ours);
  BOOST_TEST(fs::is_symlink(inner / "a"));
  fs::remove(inner / "a");
  write(inner / "a");
  fs::create_directory_symlink(inner, folder / "link");
  BOOST_TEST(!io::holds_only(folder / "link", is_ours));
  io::remove_ours(folder / "link", is_ours);
  BOOST_TEST(fs::exists(inner / "a"));
  BOOST_TEST(fs::is_symlink(folder / "link"));
  BOOST_TEST(!io::remove_empty(folder / "link"));
  io::remove_ours(folder / "absent", is_ours);
}

BOOST_AUTO_TEST_CASE(a_new_file_takes_no_place) {
  {
    io::AtomicFile file(folder / "a");
    file.write(std::string_view("first"));
    BOOST_TEST(file.commit_if_absent());
  }
  {
    io::AtomicFile file(folder / "a");
    file.write(std::string_view("second"));
    BOOST_TEST(!file.commit_if_absent());
  }
  std::string text;
  std::ifstream(folder / "a") >> text;
  BOOST_TEST(text == "first");
  BOOST_TEST(std::distance(fs::directory_iterator(folder), fs::directory_iterator()) == 2);
}

// Bad input is what was named, not what the machine lacks.
BOOST_AUTO_TEST_CASE(a_machine_without_descriptors_is_no_bad_input) {
  write(folder / "a");
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{0, before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &none);
  bool failed = false;
  try {
    const io::MappedFile file(folder / "a");
  } catch (const IoError& error) {
    failed = std::string(error.what()).find("Too many open files") != std::string::npos;
  } catch (const Error&) {
  }
  ::setrlimit(RLIMIT_NOFILE, &before);
  BOOST_TEST(failed);
  BOOST_CHECK_THROW(io::MappedFile(folder / "absent"), DataError);
}

BOOST_AUTO_TEST_SUITE_END()
