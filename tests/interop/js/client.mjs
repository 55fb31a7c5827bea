// An application over the npm package `wukongimjssdk`, as small as one can be: it connects, sends, keeps what it is told and
// syncs over HTTP after every connect, as WuKongIM's own documentation wires it. One process is one client, because the
// SDK is one object.
//
//   node client.mjs DIRECTORY        where package.json is installed
//
// Told by lines of JSON {id, do, …} on stdin, it answers {id, ok} or {id, error} and tells {event, …} on stdout. What the
// SDK prints goes to stderr. It ends when stdin ends.

import { Console } from 'node:console';
import { createRequire, register } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

globalThis.console = new Console(process.stderr);
const directory = process.argv[2];
register(new URL('./packages.mjs', import.meta.url));
const { WebSocket } = createRequire(join(directory, 'package.json'))('ws');

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const fault = (error) => say({ event: 'fault', text: String(error?.stack ?? error) });
process.on('uncaughtException', fault);
process.on('unhandledRejection', fault);

// What went over the wire, beside the SDK: it says nothing about heartbeats.
const wire = { pings: 0, pongs: 0, texts: 0, sockets: 0 };

globalThis.WebSocket = class extends WebSocket {
    constructor(address) {
        super(address);
        wire.sockets += 1;
        this.on('message', (data, binary) => {
            const bytes = new Uint8Array(data);
            wire.texts += binary ? 0 : 1;
            wire.pongs += bytes.length === 1 && bytes[0] === 0x80 ? 1 : 0;
        });
    }

    send(data) {
        wire.pings += data.length === 1 && data[0] === 0x70 ? 1 : 0;
        super.send(data);
    }
};

const lib = pathToFileURL(join(directory, 'node_modules/wukongimjssdk/lib/sdk.js'));
const { WKSDK, Channel, Conversation, Message, MessageText, SyncOptions } = await import(lib);
const sdk = WKSDK.shared();

// Messages of the server by channel and place. Keyed by place as an application's table would be: two messages at one place
// would show as a fault, one message at two places in what `inbox` answers.
const channels = new Map();
// Own messages on their way, by clientSeq.
const sending = new Map();
let version = 0;
let http = null;

function placesOf({ channelID, channelType }) {
    const key = `${channelType}:${channelID}`;
    if (!channels.has(key)) channels.set(key, new Map());
    return channels.get(key);
}

function keep(message) {
    const places = placesOf(message.channel);
    const known = places.get(message.messageSeq);
    const row = {
        seq: message.messageSeq,
        id: String(message.messageID),
        no: message.clientMsgNo,
        from: message.fromUID,
        text: message.content?.text,
    };
    if (known && JSON.stringify(known) !== JSON.stringify(row)) {
        fault(`two messages at one place: ${JSON.stringify(known)} ${JSON.stringify(row)}`);
    }
    places.set(message.messageSeq, row);
    return row;
}

// The last place up to which nothing is missing.
function wholeTo(channel) {
    const places = placesOf(channel);
    let place = 0;
    while (places.has(place + 1)) place += 1;
    return place;
}

async function post(path, body) {
    const answer = await fetch(http.url + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json', token: http.token },
        body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
}

async function addressFrom(url, uid, token) {
    const answer = await fetch(`${url}/route?uid=${encodeURIComponent(uid)}`, { headers: { token } });
    if (!answer.ok) throw new Error(`/route: ${answer.status} ${await answer.text()}`);
    return (await answer.json()).ws_addr;
}

function messageOf(row) {
    const message = new Message();
    message.messageID = row.message_idstr;
    message.messageSeq = row.message_seq;
    message.clientMsgNo = row.client_msg_no;
    message.fromUID = row.from_uid;
    message.channel = new Channel(row.channel_id, row.channel_type);
    message.timestamp = row.timestamp;
    message.header.reddot = row.header.red_dot === 1;
    const payload = Buffer.from(row.payload, 'base64');
    message.content = sdk.getMessageContent(JSON.parse(payload.toString()).type);
    message.content.decode(new Uint8Array(payload));
    return message;
}

sdk.config.provider.syncRemindersCallback = async () => [];
sdk.config.provider.syncConversationsCallback = async () => {
    const last_msg_seqs = [...channels.keys()]
        .map((key) => key.split(/:(.*)/s))
        .map(([type, id]) => `${id}:${type}:${wholeTo(new Channel(id, Number(type)))}`)
        .join('|');
    const rows = await post('/conversation/sync', { uid: sdk.config.uid, version, last_msg_seqs, msg_count: 1 });
    return rows.map((row) => {
        version = Math.max(version, row.version);
        const conversation = new Conversation();
        conversation.channel = new Channel(row.channel_id, row.channel_type);
        conversation.unread = row.unread;
        conversation.timestamp = row.timestamp;
        conversation.lastMsgSeq = row.last_msg_seq;
        return conversation;
    });
};
sdk.config.provider.syncMessagesCallback = async (channel, options) => {
    const page = await post('/channel/messagesync', {
        login_uid: sdk.config.uid,
        channel_id: channel.channelID,
        channel_type: channel.channelType,
        start_message_seq: options.startMessageSeq,
        end_message_seq: options.endMessageSeq,
        limit: options.limit,
        pull_mode: options.pullMode,
    });
    return page.messages.map(messageOf);
};

async function sync() {
    const conversations = await sdk.conversationManager.sync({});
    let fetched = 0;
    for (const { channel, lastMsgSeq } of conversations) {
        const options = Object.assign(new SyncOptions(), { limit: 100, pullMode: 1 });
        let page;
        do {
            options.startMessageSeq = wholeTo(channel) + 1;
            page = options.startMessageSeq > lastMsgSeq ? [] : await sdk.chatManager.syncMessages(channel, options);
            page.forEach(keep);
            fetched += page.length;
        } while (page.length === options.limit);
    }
    const rows = conversations.map(({ channel, unread }) => ({ channel: channel.channelID, type: channel.channelType, unread }));
    say({ event: 'synced', fetched, conversations: rows });
}

sdk.connectManager.addConnectStatusListener((status, reason) => {
    say({ event: 'status', status, reason });
    if (status === 1 && http) sync().catch(fault);
});
sdk.chatManager.addMessageListener((message) => {
    // The SDK tells its own messages too, before they have a place.
    if (message.messageSeq === undefined) return;
    const { channel, header, timestamp } = message;
    const row = keep(message);
    say({ event: 'message', ...row, channel: channel.channelID, type: channel.channelType, red: header.reddot, timestamp });
});
sdk.chatManager.addMessageStatusListener((ack) => {
    const { clientSeq, messageID, messageSeq, reasonCode } = ack;
    const message = sending.get(clientSeq);
    if (reasonCode === 1 && message) keep(Object.assign(message, { messageID, messageSeq }));
    say({ event: 'ack', client_seq: clientSeq, id: String(messageID), seq: messageSeq, reason: reasonCode });
});

const verbs = {
    configure({ uid, token, address, url, sync: wanted, heartbeat, route }) {
        Object.assign(sdk.config, { uid, token, addr: route ? '' : address });
        if (route) sdk.config.provider.connectAddrCallback = (connect) => addressFrom(url, uid, token).then(connect, fault);
        if (heartbeat) sdk.config.heartbeatInterval = heartbeat;
        http = wanted ? { url, token } : null;
    },
    connect() {
        sdk.connect();
    },
    disconnect() {
        sdk.disconnect();
    },
    async send({ channel, type, texts }) {
        const before = sdk.chatManager.clientSeq;
        for (const text of texts) {
            const content = new MessageText(text);
            const packet = sdk.chatManager.clientSeq + 1;
            // A socket that is just being opened throws here; the SDK has queued the message then, and sends it later.
            const message = await sdk.chatManager.send(content, new Channel(channel, type)).catch(() => null);
            sending.set(packet, message ?? Message.fromSendPacket(sdk.chatManager.sendingQueues.get(packet), content));
        }
        return { first: before + 1, count: texts.length };
    },
    inbox({ channel, type }) {
        return [...placesOf(new Channel(channel, type)).values()].sort((a, b) => a.seq - b.seq);
    },
    wire() {
        return { ...wire, status: sdk.connectManager.status, queued: sdk.chatManager.sendingQueues.size };
    },
};

for await (const line of createInterface({ input: process.stdin })) {
    const { id, do: verb, ...rest } = JSON.parse(line);
    try {
        say({ id, ok: (await verbs[verb](rest)) ?? null });
    } catch (error) {
        say({ id, error: String(error?.stack ?? error) });
    }
}
process.exit(0);
