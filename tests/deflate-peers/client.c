/*
 * permessage-deflate as libwebsockets speaks it: client PORT OFFER < MESSAGES
 *
 * Each line of the input is a message. Sends one after the other and expects each back; says "ok", and how many there were.
 */
#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *messages[100];
static int count, sent, at, failed, over;
static char *received;
static size_t received_length;

static int callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
	switch (reason) {
	case LWS_CALLBACK_CLIENT_ESTABLISHED:
		lws_callback_on_writable(wsi);
		break;
	case LWS_CALLBACK_CLIENT_WRITEABLE:
		/* It also comes unasked. */
		if (sent == at && at < count) {
			size_t length = strlen(messages[sent]);
			unsigned char *buffer = malloc(LWS_PRE + length);

			memcpy(buffer + LWS_PRE, messages[sent++], length);
			if (lws_write(wsi, buffer + LWS_PRE, length, LWS_WRITE_TEXT) < (int)length)
				failed = 1;
			free(buffer);
		}
		break;
	case LWS_CALLBACK_CLIENT_RECEIVE:
		received = realloc(received, received_length + len + 1);
		memcpy(received + received_length, in, len);
		received_length += len;
		if (!lws_is_final_fragment(wsi))
			break;
		if (at == count || received_length != strlen(messages[at]) ||
		    memcmp(received, messages[at], received_length)) {
			fprintf(stderr, "message %d of %d came back as %zu bytes\n", at, count, received_length);
			failed = 1;
			return -1;
		}
		received_length = 0;
		at++;
		if (at == count) {
			over = 1;
			return -1;
		}
		lws_callback_on_writable(wsi);
		break;
	case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
		fprintf(stderr, "no connection: %s\n", in ? (char *)in : "?");
		failed = 1;
		break;
	case LWS_CALLBACK_CLIENT_CLOSED:
		failed |= !over;
		over = 1;
		break;
	default:
		break;
	}
	return 0;
}

static const struct lws_protocols protocols[] = { { "echo", callback, 0, 64 * 1024, 0, NULL, 0 }, { NULL, NULL, 0, 0, 0, NULL, 0 } };

int main(int argc, char **argv)
{
	struct lws_context_creation_info info = { 0 };
	struct lws_client_connect_info to = { 0 };
	struct lws_extension extensions[2] = { { "permessage-deflate", lws_extension_callback_pm_deflate, NULL } };
	size_t capacity = 0;
	ssize_t length;

	if (argc != 3)
		return 2;
	extensions[0].client_offer = argv[2];
	while (count < 100 && (length = getline(&messages[count], &capacity, stdin)) > 0) {
		messages[count][length - 1] = 0;
		count++;
		capacity = 0;
	}
	lws_set_log_level(LLL_ERR, NULL);
	info.port = CONTEXT_PORT_NO_LISTEN;
	info.protocols = protocols;
	info.extensions = extensions;
	info.gid = info.uid = -1;
	struct lws_context *context = lws_create_context(&info);
	to.context = context;
	to.address = to.host = "127.0.0.1";
	to.port = atoi(argv[1]);
	to.path = "/";
	to.protocol = "echo";
	if (!context || !lws_client_connect_via_info(&to))
		failed = 1;
	while (!failed && !over && lws_service(context, 0) >= 0)
		;
	lws_context_destroy(context);
	if (failed || at < count)
		return 1;
	printf("ok %d\n", at);
	return 0;
}
