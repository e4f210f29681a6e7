# comigs_room(NAME SOURCES ... APART ... PUBLIC ... PRIVATE ... [TORCH]): one folder, one namespace, one target comigs::NAME.
# Links are PRIVATE unless a header of the room shows the other room's types: the link graph is the architecture.
# Sources are compiled several at a time, which halves the build: headers are most of a file. Those APART have names of
# their own for what another file of the room calls the same, and are compiled alone.
function(comigs_room name)
  cmake_parse_arguments(ROOM "TORCH" "" "SOURCES;APART;PUBLIC;PRIVATE" ${ARGN})
  add_library(comigs_${name} STATIC ${ROOM_SOURCES} ${ROOM_APART})
  set_target_properties(comigs_${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 6)
  set_source_files_properties(${ROOM_APART} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  add_library(comigs::${name} ALIAS comigs_${name})
  # A room's headers are seen by itself and by those who link it, and by no one else.
  set(door ${CMAKE_BINARY_DIR}/rooms/${name})
  file(MAKE_DIRECTORY ${door}/comigs)
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/include/comigs/${name} ${door}/comigs/${name} SYMBOLIC)
  target_include_directories(comigs_${name} PUBLIC ${door})
  target_link_libraries(comigs_${name} PUBLIC ${ROOM_PUBLIC} PRIVATE comigs_settings ${ROOM_PRIVATE})
  if(ROOM_TORCH)
    target_link_libraries(comigs_${name} PUBLIC comigs_torch)
    comigs_precompile_torch(comigs_${name})
  endif()
endfunction()

# Parsing LibTorch's headers dominates a file's build time: they are parsed once, for the first target that sees them.
function(comigs_precompile_torch target)
  if(target STREQUAL comigs_model)
    target_precompile_headers(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src/model/torch_headers.hpp)
  else()
    target_precompile_headers(${target} REUSE_FROM comigs_model)
  endif()
endfunction()
