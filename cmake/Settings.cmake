# What every target is built with: the language, the warnings, the sanitizers, the version that results name.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

add_library(comigs_settings INTERFACE)
target_compile_options(comigs_settings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
    $<$<BOOL:${COMIGS_WERROR}>:-Werror>>
  # A kernel whose registers go to memory is slow, and nobody sees it.
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${COMIGS_WERROR}>>:-Xptxas=-warn-spills,-warn-lmem-usage,-Werror>)
if(COMIGS_SANITIZE)
  # fuzzer-no-link: coverage in the rooms; the fuzzer's own main is linked by the targets of tests/fuzz.
  set(sanitizers_address address,undefined)
  set(sanitizers_thread thread)
  set(sanitizers_fuzzer fuzzer-no-link,address,undefined)
  if(NOT DEFINED sanitizers_${COMIGS_SANITIZE})
    message(FATAL_ERROR "COMIGS_SANITIZE is '${COMIGS_SANITIZE}'; expected OFF, address, thread or fuzzer")
  endif()
  set(sanitizers -fsanitize=${sanitizers_${COMIGS_SANITIZE}})
  target_compile_options(comigs_settings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${sanitizers} -fno-omit-frame-pointer>)
  target_link_options(comigs_settings INTERFACE ${sanitizers})
endif()

# The commit is read at configure time; a tree without git says "unknown".
execute_process(COMMAND git -C ${CMAKE_SOURCE_DIR} describe --always --dirty --abbrev=12
                OUTPUT_VARIABLE COMIGS_GIT_COMMIT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT COMIGS_GIT_COMMIT)
  set(COMIGS_GIT_COMMIT unknown)
endif()
