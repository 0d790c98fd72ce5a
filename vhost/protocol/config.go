package protocol

import (
	"encoding/binary"
	"fmt"
)

const (
	// MaxConfig is the largest access to the configuration space, in bytes.
	MaxConfig = 256
	// ConfigHeaderSize is what a Config adds to its Data on the wire, in bytes.
	ConfigHeaderSize = 12
)

// Flags of a Config.
const (
	// ConfigWritable: the driver writes to a field that it may write.
	ConfigWritable uint32 = 0
	// ConfigMigration: the front-end restores the space after a migration.
	ConfigMigration uint32 = 1
)

// Config is the payload of GET_CONFIG, its reply, and SET_CONFIG: len(Data) bytes
// of the device's configuration space from Offset on. In a GET_CONFIG the content
// of Data means nothing.
type Config struct {
	Offset uint32
	Flags  uint32
	Data   []byte
}

// Append puts the wire form behind b.
func (c *Config) Append(b []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, c.Offset)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(c.Data)))
	b = binary.NativeEndian.AppendUint32(b, c.Flags)
	return append(b, c.Data...)
}

// Decode reads the wire form. Data is a part of b, not a copy. Offset + len(Data)
// is at most MaxConfig.
func (c *Config) Decode(b []byte) error {
	if len(b) < ConfigHeaderSize {
		return fmt.Errorf("decode config access of %d bytes: %w", len(b), ErrPayloadSize)
	}
	offset, size := binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:])
	if offset > MaxConfig || size > MaxConfig-offset {
		return fmt.Errorf("decode config access to %d bytes at %d: %w", size, offset, ErrPayloadValue)
	}
	if err := checkSize("config access", b, ConfigHeaderSize+int(size)); err != nil {
		return err
	}
	c.Offset, c.Flags, c.Data = offset, binary.NativeEndian.Uint32(b[8:]), b[ConfigHeaderSize:]
	return nil
}
