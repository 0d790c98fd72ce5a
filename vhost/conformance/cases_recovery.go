package conformance

import (
	"sealblk/vhost/frontend"
	"sealblk/vhost/protocol"
)

// recoveryCases end the back-end without warning. They take a way to start it again.
var recoveryCases = []Case{
	{Kind: House, Rule: "a back-end is there again before its front-end reconnects", Spec: "vhost-user, Communication; seen: controllers not re-created", run: comesBack},
	{Kind: Must, Rule: "what was flushed survives a restart", Spec: "virtio 5.2.6.2", run: flushedSurvives},
	{Kind: Must, Rule: "writes without write cache survive a restart", Spec: "virtio 5.2.6.2", run: writeThroughSurvives},
	{Kind: Must, Rule: "what the back-end says about itself survives a restart", Spec: "virtio 2.4", run: sameAfterRestart},
	{Kind: House, Rule: "requests at a restart are carried out by the next back-end", Spec: "vhost-user, SET_VRING_BASE", run: resubmitted},
	{Kind: House, Rule: "a write cache that was turned off stays off across a restart", Spec: "virtio 5.2.5.2; QEMU does not say it again", run: writeCacheStaysOff},
	{Kind: Must, Rule: "requests in flight at a restart are carried out once each", Spec: "vhost-user, Inflight I/O tracking; seen: lost", run: inflightSurvives},
}

func (x *rig) needsRestart() {
	if x.target.Restart == nil {
		x.skipf("there is no way to restart the back-end")
	}
}

func comesBack(x *rig) {
	x.needsRestart()
	for i := range 2 {
		d := x.open(frontend.Options{})
		x.verify(d.Queue(0), 0, random(i, 4096))
		x.restart()
		x.verify(x.open(frontend.Options{}).Queue(0), 0, random(i+10, 4096))
	}
}

func flushedSurvives(x *rig) {
	x.needsRestart()
	x.needsWritable()
	d := x.open(frontend.Options{})
	x.verify(d.Queue(0), areaOffset, random(31, areaSize))
	if d.Has(frontend.FeatureFlush) {
		x.must(d.Queue(0).Flush())
	}
	x.restart()
	x.verifyRead(x.open(frontend.Options{}).Queue(0), areaOffset, random(31, areaSize))
}

func writeThroughSurvives(x *rig) {
	x.needsRestart()
	x.needsWritable()
	x.needs(frontend.FeatureConfigWCE, "CONFIG_WCE")
	d := x.open(frontend.Options{})
	x.must(d.SetWriteCache(false))
	x.verify(d.Queue(0), areaOffset, random(32, areaSize))
	x.restart()
	x.verifyRead(x.open(frontend.Options{}).Queue(0), areaOffset, random(32, areaSize))
}

func sameAfterRestart(x *rig) {
	x.needsRestart()
	before := x.open(frontend.Options{})
	id, err := before.Queue(0).GetID()
	x.must(err)
	x.restart()
	after := x.open(frontend.Options{})
	again, err := after.Queue(0).GetID()
	x.must(err)
	a, b := before.Config, after.Config
	a.Writeback, b.Writeback = 0, 0
	if before.Features != after.Features || a != b || id != again {
		x.errorf("features %#x, id %q and %+v became %#x, %q and %+v", before.Features, id, a, after.Features, again, b)
	}
}

// resubmitted is what QEMU does without in-flight tracking: the driver's ring is
// taken up where the used index stands.
func resubmitted(x *rig) {
	x.needsRestart()
	x.needsWritable()
	d := x.open(frontend.Options{})
	q := d.Queue(0)
	x.must(d.Session.SetVringEnable(0, false))
	requests := x.writes(q, 16)
	x.submit(q, requests...)
	x.restart()
	s := x.session()
	_, err := s.GetFeatures()
	x.must(err)
	x.must(s.SetProtocolFeatures(d.ProtocolFeatures &^ (1 << protocol.ProtocolBackendReq)))
	x.must(s.SetOwner())
	_ = d.Reattach(s) // the session before may have ended in any way
	x.share(d)
	x.place(d, q, q.Kick.FD(), q.Call.FD())
	x.must(s.SetVringEnable(0, true))
	x.must(q.Kick.Signal())
	x.finish(d, requests)
}

// writes are n writes of a page each to the area.
func (x *rig) writes(q *frontend.Queue, n int) []*frontend.Request {
	var requests []*frontend.Request
	for i := range n {
		w := x.request(q, frontend.TypeOut, areaSector+uint64(i)*8, 4096)
		copy(w.Data, random(100+i, 4096))
		requests = append(requests, w)
	}
	return requests
}

// inflightSurvives kills the back-end under load.
func inflightSurvives(x *rig) {
	x.needsRestart()
	x.needsWritable()
	for range 3 {
		d, r := x.tracked()
		q := d.Queue(0)
		x.begin(d, r)
		requests := x.writes(q, 20)
		x.submit(q, requests...)
		x.restart()
		x.again(d)
		x.begin(d, r)
		x.finish(d, requests)
		x.must(d.Session.Close())
	}
}

// writeCacheStaysOff does as QEMU does: it sends SET_CONFIG when the driver asks for it,
// and answers the driver by itself after that.
func writeCacheStaysOff(x *rig) {
	x.needsRestart()
	x.needs(frontend.FeatureConfigWCE, "CONFIG_WCE")
	for _, on := range []bool{false, true} {
		d, r := x.tracked()
		x.begin(d, r)
		x.must(d.SetWriteCache(on))
		x.must(d.Queue(0).Do(x.read(d.Queue(0), 0)))
		x.restart()
		x.again(d)
		x.begin(d, r)
		now, err := d.ReadConfig()
		x.must(err)
		if !on && now.Writeback != 0 {
			x.errorf("turned off before the restart, and on after it")
		}
		x.must(d.Session.Close())
	}
}
