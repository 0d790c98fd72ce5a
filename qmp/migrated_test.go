package qmp

import "testing"

func TestMigrated(t *testing.T) {
	for status, want := range map[string]bool{
		"postmigrate": true, "running": false, "paused": false, "finish-migrate": false, "inmigrate": false, "shutdown": false,
	} {
		q := newFake(t)
		q.status = status
		if got, err := Migrated(patient(t), dial(t, q.path)); err != nil || got != want {
			t.Errorf("%s: %v, %v", status, got, err)
		}
	}
	q := newFake(t)
	q.spoil = func(int, request) fault { return refuse }
	if _, err := Migrated(patient(t), dial(t, q.path)); err == nil {
		t.Error("no error")
	}
}
