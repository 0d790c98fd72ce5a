package speed

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// OpenSSL runs the speed test of the openssl command for AES-256-XTS with calls of
// the given size, for a second, and returns bytes per second of processor time.
func OpenSSL(program string, size int, decrypt bool) (float64, error) {
	args := []string{"speed", "-mr", "-seconds", "1", "-bytes", strconv.Itoa(size)}
	if decrypt {
		args = append(args, "-decrypt")
	}
	out, err := exec.Command(program, append(args, "-evp", "aes-256-xts")...).Output()
	if err != nil {
		return 0, fmt.Errorf("run openssl speed: %w", err)
	}
	return parseSpeed(string(out))
}

// parseSpeed finds the result in the machine-readable output: a line that begins
// with +F and ends with bytes per second.
func parseSpeed(out string) (float64, error) {
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if fields[0] == "+F" && len(fields) == 4 {
			return strconv.ParseFloat(fields[3], 64)
		}
	}
	return 0, fmt.Errorf("read output of openssl speed: no result in %q", out)
}
