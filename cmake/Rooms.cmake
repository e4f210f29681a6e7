# comigs_room(NAME SOURCES ... PUBLIC ... PRIVATE ... [TORCH]): one folder, one namespace, one target comigs::NAME.
# Links are PRIVATE unless a header of the room shows the other room's types: the link graph is the architecture.
function(comigs_room name)
  cmake_parse_arguments(ROOM "TORCH" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  add_library(comigs_${name} STATIC ${ROOM_SOURCES})
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
