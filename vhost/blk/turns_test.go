package blk_test

import (
	"encoding/binary"
	"testing"

	"sealblk/blockdev/blockdevtest"
	"sealblk/blockdev/memory"
	"sealblk/vhost"
	"sealblk/vhost/blk"
	"sealblk/vhost/virtqueue"
)

// TestAnswersAndDataTakeTurns: requests that are answered at once, and more of them than
// are polled, do not keep what the block device completed from the driver, nor the other
// way round.
func TestAnswersAndDataTakeTurns(t *testing.T) {
	for _, few := range []string{"read", "id"} {
		t.Run("one "+few+" among many others", func(t *testing.T) {
			d, err := blk.New(newFault(t, memory.Options{}, blockdevtest.FaultOptions{}), blk.Options{Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			q, err := d.OpenQueue(vhost.QueueConfig{Size: 64})
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			slots := make([]int, 64)
			for i := range slots {
				slots[i] = i
			}
			submit := func(kind string) *vhost.Request {
				typ, length := uint32(0), 4096
				if kind == "id" {
					typ, length = 8, 20
				}
				header := make([]byte, 16)
				binary.LittleEndian.PutUint32(header, typ)
				r := &vhost.Request{Slot: slots[0], Chain: virtqueue.Chain{Readable: [][]byte{header}, Writable: [][]byte{make([]byte, length+1)}}}
				slots = slots[1:]
				if err := q.Submit(r); err != nil {
					t.Fatal(err)
				}
				q.Push()
				return r
			}
			many := map[string]string{"read": "id", "id": "read"}[few]
			submit(many)
			submit(many)
			wanted := submit(few)
			done := make([]*vhost.Request, 1)
			for range 10 {
				submit(many)
				if q.Poll(done) == 1 {
					if done[0] == wanted {
						return
					}
					slots = append(slots, done[0].Slot)
				}
			}
			t.Error("it did not come in ten polls")
		})
	}
}
