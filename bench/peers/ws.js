#!/usr/bin/env node
// ws on Node: `ws.js PORT`, run from where its packages are. Defaults, which are: no compression, and unmasking by bufferutil
// where that is to be had. Node's HTTP server sets TCP_NODELAY.
const { WebSocketServer } = require('ws');

new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]) }).on('connection', (socket) => {
  socket.on('error', () => {});
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});
