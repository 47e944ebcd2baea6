/*
 * libwebsockets in a loop of its own: lws poll|uv|deflate PORT DIRECTORY [CERTIFICATE KEY]
 *
 * An echo on /, and the files of DIRECTORY from a mount. Sending is as in its author's examples, messages are queued and the
 * writeable callback writes them, but all of them, until lws has to buffer one: lws_partial_buffered() is the documented way
 * to know, without the poll(2) for each message that lws_send_pipe_choked() costs. One read takes up to 64 KiB, and a message
 * leaves in one write, both instead of the default of 4 KiB, which costs large messages most of their speed. `uv` is the same
 * in libuv's loop, the way to more connections than poll(2) bears. `deflate` is `poll` with permessage-deflate, with context takeover
 * where the client's offer lets it; a message leaves at each writeable callback, since none may be written while lws still
 * drains what it compressed. The others have no extensions, so nothing is compressed. With PORT 0 it says where it listens.
 */
#include <libwebsockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER (64 * 1024)
/* Unanswered bytes above which nothing more is read. */
#define HIGH_WATER (1024 * 1024)

static int deflating;

struct message {
	struct message *next;
	size_t len, capacity;
	enum lws_write_protocol kind;
	/* LWS_PRE bytes for lws to put the header into, then the payload. */
	unsigned char bytes[];
};

struct session {
	struct message *first, *last;
	/* Of which a part has come. */
	struct message *incoming;
	size_t queued;
};

static int receive(struct lws *wsi, struct session *session, const void *in, size_t len)
{
	struct message *message = session->incoming;
	size_t used = message ? message->len : 0;
	size_t needed = used + len + lws_remaining_packet_payload(wsi);

	if (!message || message->capacity < needed) {
		/* How long a compressed message will be is not known. */
		if (message && needed < 2 * message->capacity)
			needed = 2 * message->capacity;
		message = realloc(message, sizeof(*message) + LWS_PRE + needed);
		if (!message)
			return -1;
		message->next = NULL;
		message->capacity = needed;
		message->kind = lws_frame_is_binary(wsi) ? LWS_WRITE_BINARY : LWS_WRITE_TEXT;
		session->incoming = message;
	}
	memcpy(message->bytes + LWS_PRE + used, in, len);
	message->len = used + len;
	if (lws_remaining_packet_payload(wsi) || !lws_is_final_fragment(wsi))
		return 0;

	session->incoming = NULL;
	if (session->last)
		session->last->next = message;
	else
		session->first = message;
	session->last = message;
	session->queued += message->len;
	if (session->queued >= HIGH_WATER)
		lws_rx_flow_control(wsi, 0);
	lws_callback_on_writable(wsi);
	return 0;
}

static int send_queued(struct lws *wsi, struct session *session)
{
	struct message *message;

	while ((message = session->first)) {
		if (lws_write(wsi, message->bytes + LWS_PRE, message->len, message->kind) < (int)message->len)
			return -1;
		session->first = message->next;
		if (session->queued >= HIGH_WATER && session->queued - message->len < HIGH_WATER)
			lws_rx_flow_control(wsi, 1);
		session->queued -= message->len;
		free(message);
		if (!session->first)
			session->last = NULL;
		else if (deflating || lws_partial_buffered(wsi)) {
			lws_callback_on_writable(wsi);
			break;
		}
	}
	return 0;
}

static int callback(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len)
{
	struct session *session = user;
	struct message *message;

	switch (reason) {
	case LWS_CALLBACK_ESTABLISHED:
		if (deflating) {
			/*
			 * lodger's default level, and buffers of 2^12 bytes: more is no faster, the default of 2^10 is slower.
			 * Messages of 128 KiB would need more: 4.1 may close a connection on which it still drains.
			 */
			lws_set_extension_option(wsi, "permessage-deflate", "compression_level", "3");
			lws_set_extension_option(wsi, "permessage-deflate", "rx_buf_size", "12");
			lws_set_extension_option(wsi, "permessage-deflate", "tx_buf_size", "12");
		}
		return 0;
	case LWS_CALLBACK_RECEIVE:
		return receive(wsi, session, in, len);
	case LWS_CALLBACK_SERVER_WRITEABLE:
		return send_queued(wsi, session);
	case LWS_CALLBACK_CLOSED:
		while ((message = session->first)) {
			session->first = message->next;
			free(message);
		}
		free(session->incoming);
		return 0;
	default:
		return lws_callback_http_dummy(wsi, reason, user, in, len);
	}
}

/* libuv takes the signals; nothing needs to be put in order. */
static void end(void *handle, int signum)
{
	(void)handle;
	(void)signum;
	exit(0);
}

int main(int argc, char **argv)
{
	struct lws_protocols protocols[] = {
		{ .name = "echo", .callback = callback, .per_session_data_size = sizeof(struct session),
		  .rx_buffer_size = BUFFER, .tx_packet_size = 64 * 1024 * 1024 },
		{ .name = NULL }
	};
	static const struct lws_extension extensions[] = {
		{ "permessage-deflate", lws_extension_callback_pm_deflate, NULL },
		{ NULL, NULL, NULL }
	};
	struct lws_http_mount mount = {
		.mountpoint = "/", .mountpoint_len = 1, .origin_protocol = LWSMPRO_FILE, .def = "index.html"
	};
	struct lws_context_creation_info info;
	struct lws_context *context;

	if (argc != 4 && argc != 6)
		return 2;
	lws_set_log_level(0, NULL);
	mount.origin = argv[3];
	memset(&info, 0, sizeof(info));
	info.iface = "127.0.0.1";
	info.port = atoi(argv[2]);
	info.protocols = protocols;
	info.mounts = &mount;
	info.options = LWS_SERVER_OPTION_DISABLE_IPV6;
	info.pt_serv_buf_size = BUFFER + LWS_PRE;
	info.keepalive_timeout = 3600;
	deflating = !strcmp(argv[1], "deflate");
	if (deflating)
		info.extensions = extensions;
	if (!strcmp(argv[1], "uv")) {
		info.options |= LWS_SERVER_OPTION_LIBUV;
		info.signal_cb = end;
	}
	if (argc == 6) {
		info.options |= LWS_SERVER_OPTION_DO_SSL_GLOBAL_INIT;
		info.ssl_cert_filepath = argv[4];
		info.ssl_private_key_filepath = argv[5];
		info.alpn = "http/1.1";
	}
	context = lws_create_context(&info);
	if (!context)
		return 1;
	if (!info.port) {
		printf("127.0.0.1:%d\n", lws_get_vhost_listen_port(lws_get_vhost_by_name(context, "default")));
		fflush(stdout);
	}
	while (lws_service(context, 0) >= 0)
		;
	lws_context_destroy(context);
	return 0;
}
