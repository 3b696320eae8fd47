# cmake -DLIBRARY=<file> -DMOST=<bytes> -P library_size.cmake: a library that is too large is no result of the build.
file(SIZE "${LIBRARY}" bytes)
if(bytes GREATER MOST)
  file(REMOVE "${LIBRARY}")
  message(FATAL_ERROR "${LIBRARY} has ${bytes} bytes, the most is ${MOST}: fewer architectures or fewer variants")
endif()
