# `cmake --install build/release --prefix FOLDER`: where module files and Spack recipes look for things.
include(GNUInstallDirs)
# The installed program finds its libraries where the build found them: LibTorch, which may lie in .venv, and others.
set_target_properties(comigs PROPERTIES INSTALL_RPATH ${COMIGS_TORCH}/lib INSTALL_RPATH_USE_LINK_PATH ON)
install(TARGETS comigs RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES README.md CHANGELOG.md CITATION.cff DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
# Ours, and those of what is compiled in from headers.
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/comigs)
install(DIRECTORY licenses/ DESTINATION ${CMAKE_INSTALL_DATADIR}/licenses/comigs FILES_MATCHING PATTERN "*.txt")
