# The flags of the two kinds of sanitizer builds, for sources and links alike.
set(SYNCBN_ADDRESS_SANITIZER -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -O1)
set(SYNCBN_THREAD_SANITIZER -fsanitize=thread -g1 -O1)
