// The Go client at its everyday work: client URL
//
// Prints each step that is done; ends with the line of the first answer that is not as it
// should be.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
)

const wait = 5 * time.Second

func fail(text string) {
	_, _, line, _ := runtime.Caller(2)
	fmt.Printf("main.go:%d: %s\n", line, text)
	os.Exit(1)
}

func must(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func get[T any](value T, err error) T {
	if err != nil {
		fail(err.Error())
	}
	return value
}

func same(got, wanted any) {
	if !reflect.DeepEqual(got, wanted) {
		fail(fmt.Sprintf("got %v, wanted %v", got, wanted))
	}
}

func refused(err, wanted error) {
	if !errors.Is(err, wanted) {
		fail(fmt.Sprintf("got %v, wanted %v", err, wanted))
	}
}

func refusedWith(err error, code jetstream.ErrorCode) {
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != code {
		fail(fmt.Sprintf("got %v, wanted the error code %d", err, code))
	}
}

func publishSubscribe(nc *nats.Conn) {
	all := get(nc.SubscribeSync("core.>"))
	one := get(nc.SubscribeSync("core.*.b"))
	must(nc.Publish("core.a.b", []byte("first")))
	second := nats.NewMsg("core.a.c")
	second.Data = []byte("second")
	second.Header.Add("X-Colour", "green")
	second.Header.Add("X-Colour", "blue")
	must(nc.PublishMsg(second))
	same(string(get(all.NextMsg(wait)).Data), "first")
	got := get(all.NextMsg(wait))
	same(string(got.Data), "second")
	same(got.Header.Values("X-Colour"), []string{"green", "blue"})
	same(get(one.NextMsg(wait)).Subject, "core.a.b")
	must(one.Unsubscribe())
	must(all.AutoUnsubscribe(3))
	must(nc.Publish("core.x", nil))
	must(nc.Publish("core.y", nil))
	same(get(all.NextMsg(wait)).Subject, "core.x")
	_, err := all.NextMsg(wait)
	refused(err, nats.ErrMaxMessages)
}

func request(nc *nats.Conn) {
	echo := get(nc.Subscribe("service.echo", func(msg *nats.Msg) {
		must(msg.Respond(bytes.ToUpper(msg.Data)))
	}))
	same(string(get(nc.Request("service.echo", []byte("hello"), wait)).Data), "HELLO")
	_, err := nc.Request("service.nobody", nil, wait)
	refused(err, nats.ErrNoResponders)
	must(echo.Drain())
	get(nc.RTT())
}

func queueGroup(nc *nats.Conn) {
	got := make(chan int, 200)
	for range 3 {
		get(nc.QueueSubscribe("jobs", "workers", func(msg *nats.Msg) {
			got <- get(strconv.Atoi(string(msg.Data)))
		}))
	}
	for number := range 100 {
		must(nc.Publish("jobs", []byte(strconv.Itoa(number))))
	}
	must(nc.FlushTimeout(wait))
	var numbers []int
	for range 100 {
		select {
		case number := <-got:
			numbers = append(numbers, number)
		case <-time.After(wait):
			fail(fmt.Sprintf("only %d of 100 jobs", len(numbers)))
		}
	}
	slices.Sort(numbers)
	for number, job := range numbers {
		same(job, number)
	}
}

// A connection that drains gets what is under way and then ends by itself.
func drain(nc *nats.Conn) {
	closed := make(chan struct{})
	other := get(nats.Connect(nc.ConnectedUrl(), nats.ClosedHandler(func(*nats.Conn) {
		close(closed)
	})))
	var got atomic.Int64
	get(other.Subscribe("drain", func(*nats.Msg) {
		time.Sleep(time.Millisecond)
		got.Add(1)
	}))
	must(other.Flush())
	for range 100 {
		must(nc.Publish("drain", nil))
	}
	must(nc.Flush())
	must(other.Drain())
	select {
	case <-closed:
	case <-time.After(wait):
		fail("not drained")
	}
	same(got.Load(), int64(100))
}

// The services framework: what `nats service` looks for.
func service(nc *nats.Conn) {
	svc := get(micro.AddService(nc, micro.Config{
		Name:    "clock",
		Version: "1.0.0",
		Endpoint: &micro.EndpointConfig{
			Subject: "clock.now",
			Handler: micro.HandlerFunc(func(r micro.Request) { must(r.Respond([]byte("noon"))) }),
		},
	}))
	same(string(get(nc.Request("clock.now", nil, wait)).Data), "noon")
	pong := get(nc.Request("$SRV.PING.clock", nil, wait))
	if !bytes.Contains(pong.Data, []byte(svc.Info().ID)) {
		fail("another service answers: " + string(pong.Data))
	}
	must(svc.Stop())
}

func streamAndConsumers(nc *nats.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	js := get(jetstream.New(nc))
	stream := get(js.CreateStream(ctx, jetstream.StreamConfig{
		Name: "READINGS", Subjects: []string{"sensors.>"}, AllowDirect: true,
	}))
	for number := 1; number <= 30; number++ {
		ack := get(js.Publish(ctx, "sensors.t", []byte(strconv.Itoa(number))))
		same([]any{ack.Stream, ack.Sequence}, []any{"READINGS", uint64(number)})
	}
	once := get(js.Publish(ctx, "sensors.u", []byte("31"), jetstream.WithMsgID("a")))
	twice := get(js.Publish(ctx, "sensors.u", []byte("31"), jetstream.WithMsgID("a")))
	same([]any{once.Sequence, twice.Sequence, twice.Duplicate}, []any{uint64(31), uint64(31), true})
	_, err := js.Publish(ctx, "sensors.u", nil, jetstream.WithExpectLastSequence(7))
	refusedWith(err, 10071)
	var acks []jetstream.PubAckFuture
	for range 100 {
		acks = append(acks, get(js.PublishAsync("sensors.v", []byte("many"))))
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(wait):
		fail("not all published")
	}
	same((<-acks[99].Ok()).Sequence, uint64(131))

	worker := get(stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second,
		FilterSubjects: []string{"sensors.t", "sensors.u"},
	}))
	batch := get(worker.Fetch(10))
	var first []jetstream.Msg
	for msg := range batch.Messages() {
		first = append(first, msg)
	}
	must(batch.Error())
	same(len(first), 10)
	for _, msg := range first[:8] {
		must(msg.DoubleAck(ctx))
	}
	must(first[8].TermWithReason("not wanted"))
	must(first[9].Nak())
	seen := map[uint64]uint64{}
	messages := get(worker.Messages(jetstream.PullMaxMessages(7)))
	for len(seen) < 22 {
		msg := get(messages.Next())
		meta := get(msg.Metadata())
		seen[meta.Sequence.Stream] = meta.NumDelivered
		must(msg.InProgress())
		must(msg.DoubleAck(ctx))
	}
	messages.Stop()
	same([]uint64{seen[10], seen[11], seen[31]}, []uint64{2, 1, 1})
	info := get(worker.Info(ctx))
	same([]any{info.AckFloor.Stream, info.NumPending, info.NumAckPending}, []any{uint64(31), uint64(0), 0})

	ordered := get(stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{"sensors.t"},
	}))
	numbers := make(chan string, 100)
	consuming := get(ordered.Consume(func(msg jetstream.Msg) { numbers <- string(msg.Data()) }))
	for number := 1; number <= 30; number++ {
		same(<-numbers, strconv.Itoa(number))
	}
	consuming.Stop()

	push := get(stream.CreatePushConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "pushed", DeliverSubject: nats.NewInbox(), FilterSubject: "sensors.t",
		AckPolicy: jetstream.AckExplicitPolicy, IdleHeartbeat: time.Second, FlowControl: true,
	}))
	pushing := get(push.Consume(func(msg jetstream.Msg) {
		must(msg.Ack())
		numbers <- string(msg.Data())
	}))
	for number := 1; number <= 30; number++ {
		same(<-numbers, strconv.Itoa(number))
	}
	pushing.Stop()

	same(string(get(stream.GetMsg(ctx, 7)).Data), "7")
	same(string(get(stream.GetLastMsgForSubject(ctx, "sensors.u")).Data), "31")
	must(stream.DeleteMsg(ctx, 7))
	_, err = stream.GetMsg(ctx, 7)
	refused(err, jetstream.ErrMsgNotFound)
	must(stream.Purge(ctx, jetstream.WithPurgeSubject("sensors.v")))
	state := get(stream.Info(ctx, jetstream.WithSubjectFilter(">"))).State
	same(state.Msgs, uint64(30))
	same(state.Subjects, map[string]uint64{"sensors.t": 29, "sensors.u": 1})
	var names []string
	for name := range js.StreamNames(ctx).Name() {
		names = append(names, name)
	}
	same(names, []string{"READINGS"})
	same(get(js.AccountInfo(ctx)).Streams, 1)
	must(js.DeleteStream(ctx, "READINGS"))
	_, err = js.Stream(ctx, "READINGS")
	refused(err, jetstream.ErrStreamNotFound)
}

func bucket(nc *nats.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	js := get(jetstream.New(nc))
	kv := get(js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "settings", History: 5}))
	same(get(kv.Create(ctx, "lamp.a", []byte("on"))), uint64(1))
	_, err := kv.Create(ctx, "lamp.a", nil)
	refused(err, jetstream.ErrKeyExists)
	same(get(kv.PutString(ctx, "lamp.a", "off")), uint64(2))
	same(get(kv.Update(ctx, "lamp.a", []byte("dim"), 2)), uint64(3))
	_, err = kv.Update(ctx, "lamp.a", []byte("stale"), 2)
	refusedWith(err, 10071)
	entry := get(kv.Get(ctx, "lamp.a"))
	same([]any{string(entry.Value()), entry.Revision()}, []any{"dim", uint64(3)})
	get(kv.PutString(ctx, "lamp.b", "1"))
	var history []string
	for _, entry := range get(kv.History(ctx, "lamp.a")) {
		history = append(history, string(entry.Value()))
	}
	same(history, []string{"on", "off", "dim"})
	var keys []string
	lister := get(kv.ListKeys(ctx))
	for key := range lister.Keys() {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	same(keys, []string{"lamp.a", "lamp.b"})
	watcher := get(kv.Watch(ctx, "lamp.*"))
	for range 2 {
		if <-watcher.Updates() == nil {
			fail("the watcher is done too early")
		}
	}
	same((<-watcher.Updates()) == nil, true)
	must(kv.Delete(ctx, "lamp.a"))
	same((<-watcher.Updates()).Operation(), jetstream.KeyValueDelete)
	must(watcher.Stop())
	_, err = kv.Get(ctx, "lamp.a")
	refused(err, jetstream.ErrKeyNotFound)
	must(kv.Purge(ctx, "lamp.b"))
	status := get(kv.Status(ctx))
	same([]any{status.Bucket(), status.History(), status.Values()}, []any{"settings", int64(5), uint64(5)})
	var buckets []string
	for name := range js.KeyValueStoreNames(ctx).Name() {
		buckets = append(buckets, name)
	}
	same(buckets, []string{"settings"})
	same(get(js.UpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "settings", History: 2})).Bucket(), "settings")
	must(js.DeleteKeyValue(ctx, "settings"))
}

// What a watcher has seen up to the last of what was there.
func initial(watcher jetstream.KeyWatcher, err error) []string {
	must(err)
	seen := []string{}
	for {
		select {
		case entry := <-watcher.Updates():
			if entry == nil {
				must(watcher.Stop())
				return seen
			}
			seen = append(seen, fmt.Sprint(entry.Key(), " ", entry.Operation(), " ", string(entry.Value())))
		case <-time.After(wait):
			fail("the watcher does not come to the end")
		}
	}
}

func bucketWatches(nc *nats.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	js := get(jetstream.New(nc))
	kv := get(js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "watched", History: 3}))
	for _, pair := range [][2]string{{"a.x", "1"}, {"a.x", "2"}, {"a.y", "3"}, {"b.x", "4"}} {
		get(kv.PutString(ctx, pair[0], pair[1]))
	}
	must(kv.Delete(ctx, "a.y"))
	const put, del = " KeyValuePutOp ", " KeyValueDeleteOp "
	same(initial(kv.Watch(ctx, "a.*")), []string{"a.x" + put + "2", "a.y" + del})
	same(initial(kv.WatchFiltered(ctx, []string{"a.x", "b.*"}, jetstream.IncludeHistory())),
		[]string{"a.x" + put + "1", "a.x" + put + "2", "b.x" + put + "4"})
	same(initial(kv.WatchAll(ctx, jetstream.IgnoreDeletes(), jetstream.MetaOnly())),
		[]string{"a.x" + put, "b.x" + put})
	same(initial(kv.WatchAll(ctx, jetstream.ResumeFromRevision(4))),
		[]string{"b.x" + put + "4", "a.y" + del})
	updates := get(kv.WatchAll(ctx, jetstream.UpdatesOnly()))
	get(kv.PutString(ctx, "c.x", "5"))
	same((<-updates.Updates()).Key(), "c.x")
	must(updates.Stop())
	keys := []string{}
	for key := range get(kv.ListKeysFiltered(ctx, "a.*", "c.*")).Keys() {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	same(keys, []string{"a.x", "c.x"})
	same(string(get(kv.GetRevision(ctx, "a.x", 1)).Value()), "1")
	refusedWith(kv.Delete(ctx, "a.x", jetstream.LastRevision(1)), 10071)
	must(kv.Purge(ctx, "b.x", jetstream.LastRevision(4)))
	must(kv.PurgeDeletes(ctx, jetstream.DeleteMarkersOlderThan(-1)))
	same(get(kv.Status(ctx)).Values(), uint64(3))

	// This client looks for the keys of a mirror without external under the mirror's own name.
	source := &jetstream.StreamSource{Name: "watched"}
	mirror := get(js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "seen", History: 3, Mirror: source}))
	sources := get(js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: "joined", History: 3, Sources: []*jetstream.StreamSource{{Name: "watched"}},
	}))
	for _, copied := range []jetstream.KeyValue{mirror, sources} {
		for end := time.Now().Add(wait); get(copied.Status(ctx)).Values() < 3; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				fail("not mirrored")
			}
		}
	}
	same(string(get(sources.Get(ctx, "a.x")).Value()), "2")
	same(initial(sources.Watch(ctx, "a.*")), []string{"a.x" + put + "2"})
	// What is put into a mirror goes to its origin.
	get(mirror.PutString(ctx, "d.x", "6"))
	same(string(get(kv.Get(ctx, "d.x")).Value()), "6")
	for _, name := range []string{"joined", "seen", "watched"} {
		must(js.DeleteKeyValue(ctx, name))
	}
}

// Keys with an end of their own, and the markers that tell of it.
func bucketTTL(nc *nats.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	js := get(jetstream.New(nc))
	kv := get(js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: "brief", History: 5, LimitMarkerTTL: time.Second, TTL: time.Hour,
	}))
	same(get(kv.Status(ctx)).LimitMarkerTTL(), time.Second)
	updates := get(kv.WatchAll(ctx, jetstream.UpdatesOnly()))
	get(kv.Create(ctx, "a", []byte("1"), jetstream.KeyTTL(time.Second)))
	same((<-updates.Updates()).Operation(), jetstream.KeyValuePut)
	same((<-updates.Updates()).Operation(), jetstream.KeyValuePurge)
	get(kv.PutString(ctx, "b", "2"))
	must(kv.Purge(ctx, "b", jetstream.PurgeTTL(time.Second)))
	for end := time.Now().Add(2 * wait); get(kv.Status(ctx)).Values() > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			fail("the markers stay")
		}
	}
	must(updates.Stop())
	must(js.DeleteKeyValue(ctx, "brief"))
}

// What is asked about consumers besides messages.
func consumerRequests(nc *nats.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	js := get(jetstream.New(nc))
	stream := get(js.CreateStream(ctx, jetstream.StreamConfig{Name: "TASKS", Subjects: []string{"tasks.>"}}))
	same(get(js.UpdateStream(ctx, jetstream.StreamConfig{
		Name: "TASKS", Subjects: []string{"tasks.>"}, MaxMsgs: 100,
	})).CachedInfo().Config.MaxMsgs, int64(100))
	for range 20 {
		get(js.Publish(ctx, "tasks.a", []byte("x")))
	}
	same(get(js.StreamNameBySubject(ctx, "tasks.b")), "TASKS")
	consumer := get(js.CreateConsumer(ctx, "TASKS", jetstream.ConsumerConfig{
		Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 50,
	}))
	get(js.UpdateConsumer(ctx, "TASKS", jetstream.ConsumerConfig{
		Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 60,
	}))
	same(get(js.PauseConsumer(ctx, "TASKS", "c", time.Now().Add(time.Minute))).Paused, true)
	same(get(js.ResumeConsumer(ctx, "TASKS", "c")).Paused, false)
	count := 0
	for msg := range get(consumer.FetchBytes(10_000, jetstream.FetchMaxWait(time.Second))).Messages() {
		must(msg.DoubleAck(ctx))
		count++
	}
	same(count, 20)
	same(get(js.ResetConsumerToSequence(ctx, "TASKS", "c", 3)).ResetSeq, uint64(3))
	msg := get(consumer.Next(jetstream.FetchMaxWait(time.Second)))
	same(get(msg.Metadata()).Sequence.Stream, uint64(3))
	must(msg.NakWithDelay(10 * time.Millisecond))
	again := 0
	for msg := range get(consumer.Fetch(18, jetstream.FetchMaxWait(wait))).Messages() {
		again += int(get(msg.Metadata()).NumDelivered) - 1
	}
	same(again, 1)
	same(get(js.ResetConsumer(ctx, "TASKS", "c")).ResetSeq, uint64(3))
	batch := get(consumer.FetchNoWait(100))
	count = 0
	for range batch.Messages() {
		count++
	}
	same(count, 18)

	// Pinned: one gets all, until it is unpinned.
	pinned := get(stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "pinned", AckPolicy: jetstream.AckExplicitPolicy, PinnedTTL: time.Minute,
		PriorityPolicy: jetstream.PriorityPolicyPinned, PriorityGroups: []string{"A"},
	}))
	first := get(pinned.Messages(jetstream.PullPriorityGroup("A"), jetstream.PullMaxMessages(1)))
	id := get(first.Next()).Headers().Get("Nats-Pin-Id")
	if id == "" {
		fail("nobody is pinned")
	}
	same(get(pinned.Info(ctx)).PriorityGroups[0].PinnedClientID, id)
	must(stream.UnpinConsumer(ctx, "pinned", "A"))
	first.Stop()
	var names []string
	for name := range stream.ConsumerNames(ctx).Name() {
		names = append(names, name)
	}
	same(names, []string{"c", "pinned"})
	infos := 0
	for range stream.ListConsumers(ctx).Info() {
		infos++
	}
	same(infos, 2)
	must(js.DeleteConsumer(ctx, "TASKS", "c"))
	must(js.DeleteStream(ctx, "TASKS"))
}

func objects(nc *nats.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	js := get(jetstream.New(nc))
	store := get(js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "files"}))
	content := make([]byte, 300*1024)
	for at := range content {
		content[at] = byte(at * 31 >> 3)
	}
	info := get(store.Put(ctx, jetstream.ObjectMeta{Name: "firmware.bin"}, bytes.NewReader(content)))
	same([]any{info.Size, info.Chunks}, []any{uint64(len(content)), uint32(3)})
	same(sha256.Sum256(get(store.GetBytes(ctx, "firmware.bin"))), sha256.Sum256(content))
	get(store.PutString(ctx, "note", "hello"))
	same(len(get(store.List(ctx))), 2)
	get(store.AddLink(ctx, "latest", get(store.GetInfo(ctx, "note"))))
	same(get(store.GetString(ctx, "latest")), "hello")
	must(store.Delete(ctx, "firmware.bin"))
	_, err := store.GetInfo(ctx, "firmware.bin")
	refused(err, jetstream.ErrObjectNotFound)
	same(get(store.GetInfo(ctx, "firmware.bin", jetstream.GetObjectInfoShowDeleted())).Deleted, true)
	watcher := get(store.Watch(ctx))
	found := []string{}
	for info := <-watcher.Updates(); info != nil; info = <-watcher.Updates() {
		found = append(found, info.Name)
	}
	slices.Sort(found)
	same(found, []string{"firmware.bin", "latest", "note"})
	must(store.UpdateMeta(ctx, "note", jetstream.ObjectMeta{Name: "letter", Description: "renamed"}))
	same((<-watcher.Updates()).Name, "letter")
	must(watcher.Stop())
	same(get(store.GetInfo(ctx, "letter")).Description, "renamed")
	other := get(js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "more"}))
	get(other.AddBucketLink(ctx, "files", store))
	same(get(other.GetInfo(ctx, "files")).Opts.Link.Bucket, "files")
	must(js.DeleteObjectStore(ctx, "more"))
	// What does not fit into a chunk, nor into what is under way at once.
	large := bytes.Repeat(content, 40)
	get(store.PutBytes(ctx, "large", large))
	same(sha256.Sum256(get(store.GetBytes(ctx, "large"))), sha256.Sum256(large))
	status := get(store.Status(ctx))
	same([]any{status.Bucket(), status.Sealed()}, []any{"files", false})
	must(store.Seal(ctx))
	same(get(store.Status(ctx)).Sealed(), true)
	_, err = store.PutString(ctx, "late", "x")
	refusedWith(err, 10109)
	same(get(store.GetString(ctx, "letter")), "hello")
	var stores []string
	for name := range js.ObjectStoreNames(ctx).Name() {
		stores = append(stores, name)
	}
	same(stores, []string{"files"})
	must(js.DeleteObjectStore(ctx, "files"))
}

func main() {
	steps := []func(*nats.Conn){
		publishSubscribe, request, queueGroup, drain, service, streamAndConsumers, bucket,
		bucketWatches, bucketTTL, consumerRequests, objects,
	}
	var trouble atomic.Value
	nc := get(nats.Connect(os.Args[1], nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { trouble.Store(err) })))
	for _, step := range steps {
		step(nc)
		fmt.Println("done:", runtime.FuncForPC(reflect.ValueOf(step).Pointer()).Name())
	}
	must(nc.FlushTimeout(wait))
	if err := trouble.Load(); err != nil {
		fail(fmt.Sprint(err))
	}
	nc.Close()
}
