# comigs_torch: LibTorch from a Python environment or an unpacked libtorch, as one imported target.
#
# LibTorch's own TorchConfig.cmake is not used: where the library was built with CUDA it stops unless a whole toolkit
# is installed, although a program that links only its CPU half needs none. We name just what we link.
set(COMIGS_TORCH "" CACHE PATH "Folder that holds LibTorch's include/ and lib/ (default: torch in .venv, then in python3)")
if(NOT COMIGS_TORCH)
  foreach(python ${CMAKE_SOURCE_DIR}/.venv/bin/python python3)
    execute_process(COMMAND ${python} -c
        "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
      OUTPUT_VARIABLE torch_folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
    if(NOT failed)
      set(COMIGS_TORCH ${torch_folder} CACHE PATH "" FORCE)
      break()
    endif()
  endforeach()
endif()
if(NOT EXISTS "${COMIGS_TORCH}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch was not found (looked in '${COMIGS_TORCH}', .venv and python3). "
                      "Run 'bash setup.sh', or name its folder with -DCOMIGS_TORCH=...")
endif()
message(STATUS "LibTorch: ${COMIGS_TORCH}")

add_library(comigs_torch INTERFACE)
target_include_directories(comigs_torch SYSTEM INTERFACE ${COMIGS_TORCH}/include
                                                         ${COMIGS_TORCH}/include/torch/csrc/api/include)
target_link_libraries(comigs_torch INTERFACE ${COMIGS_TORCH}/lib/libtorch_cpu.so ${COMIGS_TORCH}/lib/libc10.so)
# at::parallel_for lives in LibTorch's headers: without OpenMP in our own files it would run on one thread.
find_package(OpenMP REQUIRED COMPONENTS CXX)
target_link_libraries(comigs_torch INTERFACE OpenMP::OpenMP_CXX)
# RPATH, not RUNPATH: LibTorch finds its own libraries through ours.
target_link_options(comigs_torch INTERFACE -Wl,--disable-new-dtags)

if(COMIGS_CUDA STREQUAL ON)
  if(NOT EXISTS "${COMIGS_TORCH}/lib/libtorch_cuda.so")
    message(FATAL_ERROR "the CUDA back end is on, but this LibTorch has none (${COMIGS_TORCH}); "
                        "configure with -DCOMIGS_CUDA=OFF or install a LibTorch with CUDA")
  endif()
  # A process has one CUDA runtime, LibTorch's: our kernels must be built for its major version.
  file(STRINGS "${COMIGS_TORCH}/lib/libc10_cuda.so" runtime REGEX "libcudart[^ ]*\\.so\\.[0-9]+" LIMIT_COUNT 1)
  string(REGEX REPLACE ".*libcudart[^ ]*\\.so\\.([0-9]+).*" "\\1" runtime "${runtime}")
  if(runtime AND NOT runtime EQUAL CUDAToolkit_VERSION_MAJOR)
    message(FATAL_ERROR "the CUDA toolkit is ${CUDAToolkit_VERSION} (${CMAKE_CUDA_COMPILER}), but LibTorch was built with "
                        "CUDA ${runtime}. Set CUDACXX to an nvcc of CUDA ${runtime}, install a LibTorch for CUDA "
                        "${CUDAToolkit_VERSION_MAJOR}, or configure with -DCOMIGS_CUDA=OFF.")
  endif()
  # libtorch_cuda itself is loaded by those processes that use a GPU (see src/model/device.cpp).
  target_link_libraries(comigs_torch INTERFACE ${COMIGS_TORCH}/lib/libc10_cuda.so CUDA::cudart ${CMAKE_DL_LIBS})
  target_compile_definitions(comigs_torch INTERFACE COMIGS_CUDA)
endif()
