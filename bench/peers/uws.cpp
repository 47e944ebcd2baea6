/*
 * uWebSockets with permessage-deflate: uws none|both, by which directions have context takeover
 *
 * `none` is SHARED_COMPRESSOR and SHARED_DECOMPRESSOR, `both` DEDICATED_COMPRESSOR and DEDICATED_DECOMPRESSOR. The former of these
 * turns out as DEDICATED_COMPRESSOR_3KB in the version that is compared, with a window of 9 bits, whichever is asked for: it
 * takes less memory, and leaves more of a message. Says on which port it listens.
 */
#include <zlib.h>
/* It has no setting for the level. This is lodger's default. */
#undef Z_DEFAULT_COMPRESSION
#define Z_DEFAULT_COMPRESSION 3

#include "App.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

struct Nothing {};

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	bool takeover = !strcmp(argv[1], "both");

	uWS::App().ws<Nothing>("/*", {
		.compression = takeover ? uWS::CompressOptions(uWS::DEDICATED_COMPRESSOR | uWS::DEDICATED_DECOMPRESSOR)
					: uWS::CompressOptions(uWS::SHARED_COMPRESSOR | uWS::SHARED_DECOMPRESSOR),
		.maxPayloadLength = 256 * 1024,
		.idleTimeout = 0,
		.maxBackpressure = 16 * 1024 * 1024,
		.sendPingsAutomatically = false,
		.message = [](auto *socket, std::string_view message, uWS::OpCode opcode) {
			socket->send(message, opcode, true);
		},
	}).listen("127.0.0.1", 0, [](us_listen_socket_t *listener) {
		if (!listener)
			exit(1);
		printf("127.0.0.1:%d\n", us_socket_local_port(0, reinterpret_cast<us_socket_t *>(listener)));
		fflush(stdout);
	}).run();
	return 0;
}
